"""What r1ray needs of a tokenizer, and how one is loaded."""

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

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str: ...

    def apply_chat_template(
        self, conversation: Sequence[Message], *, tokenize: bool, add_generation_prompt: bool
    ) -> str: ...


def load_tokenizer(model_path: str, expected_vocab_hash: str | None = None) -> Tokenizer:
    """The tokenizer of a model folder (or hub id).

    `expected_vocab_hash` is what `r1ray.data.vocab.vocab_hash` gave when the run began. A folder whose tokenizer splits
    text otherwise than in training costs most of the accuracy without any error, so another hash raises IntegrityError;
    a folder without a usable tokenizer raises ConfigError.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model_path)
    except (OSError, ValueError) as e:
        raise ConfigError(f"no tokenizer can be loaded from model.path = {model_path!r}: {e}") from e
    if expected_vocab_hash is not None:
        _check_vocabulary(Path(model_path), expected_vocab_hash)
    return cast(Tokenizer, tokenizer)


def _check_vocabulary(folder: Path, expected: str) -> None:
    from r1ray.data.vocab import vocab_hash

    found = vocab_hash(folder)
    if found != expected:
        raise IntegrityError(
            f"the tokenizer of {folder} has the vocabulary hash {found}, the run was begun with {expected}: "
            "give the model folder that the run was begun with, or begin a new run"
        )
