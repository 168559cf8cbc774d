"""Tokenizer of the embedded model: byte-level BPE with the reasoning tags as tokens.

It is trained with Qwen2's splitter of text into words. `AutoTokenizer`, and with it every tool that loads the folder,
uses that splitter for the model type qwen2, whatever splitter the folder was saved with: with another one, prompts
would be split differently from training, and accuracy would fall from 15% to 2% without an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from learner.tiny.corpus import PROMPT, TAGS, Document
from learner.tiny.flavors import Flavor
from r1ray.data.vocab import vocab_hash
from r1ray.errors import IntegrityError
from r1ray.tasks.bus import STOPS
from r1ray.types import Int32Array

END, END_ID = "<|endoftext|>", 0
PAD, PAD_ID = "<|pad|>", 1

CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role == 'user' %}User: {% elif m.role == 'assistant' %}Assistant: {% endif %}{{ m.content }}\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""The template `plain`, for tools that only take chats; a test compares the two."""

_SAMPLE = 3200
"""Documents from which merges are learned; the same for every seed, so all tiny models share one vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDocument:
    """A document as tokens: prompt [P] and response [C], the end-of-text token included."""

    prompt: Int32Array
    response: Int32Array


def write_tokenizer(folder: Path, flavor: Flavor) -> Any:
    """Train the tokenizer, save it into `folder`, which must contain config.json, and return it as loaded from there.

    Raises IntegrityError if `AutoTokenizer` loads another tokenizer from the folder.
    """
    from transformers import AutoTokenizer

    tokenizer = _train(flavor)
    tokenizer.save_pretrained(folder)
    loaded = AutoTokenizer.from_pretrained(folder)
    samples = [PROMPT.format("bus 7 A+5 B-12 C+8"), *_texts(flavor, seed=1, count=32), "".join(TAGS) + END + PAD]
    same = all(loaded.encode(text) == tokenizer.encode(text) for text in samples)
    special = (loaded.eos_token_id, loaded.pad_token_id) == (END_ID, PAD_ID)
    if not (same and special and len(loaded) == flavor.vocabulary and vocab_hash(loaded) == vocab_hash(folder)):
        raise IntegrityError(
            f"AutoTokenizer loads another tokenizer than was saved in {folder} (equal ids: {same}, {len(loaded)} "
            "tokens):"
            " install the version of transformers that r1ray is pinned to"
        )
    return loaded


def encode(tokenizer: Any, documents: Sequence[Document]) -> list[TokenDocument]:
    """The documents as tokens; each response ends with the end-of-text token."""
    backend = tokenizer.backend_tokenizer  # ten times as fast as its wrapper
    prompts = backend.encode_batch_fast([d.prompt for d in documents])
    responses = backend.encode_batch_fast([d.response for d in documents])
    return [
        TokenDocument(
            prompt=np.array(prompt.ids, dtype=np.int32),
            response=np.array([*response.ids, tokenizer.eos_token_id], dtype=np.int32),
        )
        for prompt, response in zip(prompts, responses, strict=True)
    ]


def _train(flavor: Flavor) -> Any:
    from tokenizers import AddedToken
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer
    from transformers import Qwen2Tokenizer

    backend = Qwen2Tokenizer().backend_tokenizer
    trainer = BpeTrainer(
        vocab_size=flavor.vocabulary - len(TAGS),
        special_tokens=[END, PAD],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    # The tags are tokens already: spend no merges on them.
    words = [part for text in _texts(flavor, seed=0, count=_SAMPLE) for part in re.split("|".join(TAGS), text)]
    backend.train_from_iterator([*words, *[" " + " ".join(STOPS)] * len(words)], trainer)
    trained = json.loads(backend.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=trained["vocab"],
        merges=[tuple(pair) for pair in trained["merges"]],
        eos_token=END,
        pad_token=PAD,
        unk_token=END,
    )
    # Not special: a decoder that skips special tokens must keep the tags.
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _texts(flavor: Flavor, seed: int, count: int) -> list[str]:
    return [text for document in flavor.documents(seed, count) for text in (document.prompt, document.response)]
