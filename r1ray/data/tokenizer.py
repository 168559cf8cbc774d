"""The interface of a tokenizer, and loading one with its checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from r1ray.errors import ConfigError, IntegrityError
from r1ray.types import Message


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that r1ray uses."""

    eos_token_id: int | None
    chat_template: Any  # None: the model knows no chat format

    def encode(self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False) -> list[int]:
        """The token ids of a text."""
        ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of token ids."""
        ...

    def get_vocab(self) -> dict[str, int]:
        """Token -> id, added tokens included."""
        ...

    def apply_chat_template(
        self, conversation: Sequence[Message], *, tokenize: bool, add_generation_prompt: bool, **args: Any
    ) -> str:
        """The text of a chat in the model's own format; `args` go to the template."""
        ...


def load_tokenizer(model_path: str, expected_vocab_hash: str | None = None) -> Tokenizer:
    """The tokenizer of a model folder (or hub id).

    `expected_vocab_hash`: the value of `r1ray.data.vocab.vocab_hash` at the start of the run. A
    tokenizer that splits text differently than in training costs most of the accuracy without any
    error, so another hash raises IntegrityError. A folder without a usable tokenizer raises
    ConfigError.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model_path, trust_remote_code=False)
    except (OSError, ValueError) as e:
        raise ConfigError(f"cannot load a tokenizer from model.path = {model_path!r}: {e}") from e
    if expected_vocab_hash is not None:
        _check_vocabulary(Path(model_path), expected_vocab_hash)
    _check_loaded(Path(model_path), tokenizer)
    return cast(Tokenizer, tokenizer)


def unused_ids(tokenizer: Tokenizer, rows: int) -> list[int]:
    """Ids below `rows`, the rows of a model's output layer, that no token of its tokenizer has.

    Models pad their vocabulary (Qwen2.5 has 151,936 rows and 151,665 tokens). Such an id decodes to
    nothing, so it must be neither sampled nor counted in the learner's softmax.
    """
    used = set(tokenizer.get_vocab().values())
    return [i for i in range(rows) if i not in used]


PROBES = (
    "User: bus 7 A+5 B-12\nAssistant: <think>7+5=12, wait: x_1 = 3.14%</think> <answer>\\boxed{1,234}</answer>",
    "def f(x):\n    return {'a': [x**2, -x]}  # don't\t!\r\n\n",
    "公交 上车 12 人。Ünïcödé Привет 🙂 'll 've  two  spaces ",
)
"""Texts that two different tokenizers hardly ever split alike."""


def _check_loaded(folder: Path, tokenizer: Any) -> None:
    """Raise IntegrityError if the loaded tokenizer splits text differently than the folder's tokenizer.json.

    For some model types, such as qwen2, transformers replaces the folder's pre-tokenizer with its own.
    """
    file = folder / "tokenizer.json"
    if not file.exists():
        return
    from tokenizers import Tokenizer as Backend

    written = Backend.from_file(str(file))
    for probe in PROBES:
        ids = tokenizer.encode(probe, add_special_tokens=False)
        if list(ids) != written.encode(probe, add_special_tokens=False).ids:
            raise IntegrityError(
                f"transformers loads a tokenizer from {folder} that splits text differently than its tokenizer.json, "
                "and so would vLLM: save it with the pre-tokenizer of its model type, as learner/tiny/tokenizer.py does"
            )


def _check_vocabulary(folder: Path, expected: str) -> None:
    from r1ray.data.vocab import vocab_hash

    found = vocab_hash(folder)
    if found != expected:
        raise IntegrityError(
            f"vocabulary hash of the tokenizer in {folder}: expected {expected}, as at the start of the run, got "
            f"{found}: use the model folder that the run started with, or start a new run"
        )
