"""Conversations as training examples, tokenised when they are first asked for.

    row --template--> prompt text --tokenizer--> prompt [P]
        `--response + end of text-------------> completion [C], which alone is learned

The prompt is framed exactly as reinforcement learning and evaluation frame it. Rows stay in their files. What will be
asked for again (more than one epoch, or an evaluation) is kept as int32 tokens, so that nothing is tokenised twice.
"""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from r1ray.config.schema import Config, SourceConfig
from r1ray.data.conversations import CONVERSATION_FIELDS, Conversation, parse_conversation
from r1ray.data.stores import RowStore, open_rows
from r1ray.data.templates import CHAT_TEMPLATES, opening_of, render
from r1ray.data.tokenizer import Tokenizer
from r1ray.errors import ConfigError, DataError
from r1ray.types import Int32Array

HELD_OUT = "held_out"
"""Name of the share that is kept back where no evaluation source is configured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One conversation, tokenised. Producer: `Examples`. Consumer: `SftTrainer`."""

    prompt: Int32Array  # [P >= 1]
    completion: Int32Array  # [C >= 1] the response and the token that ends it

    @property
    def tokens(self) -> int:
        return len(self.prompt) + len(self.completion)


class Framing:
    """From a conversation to its example."""

    def __init__(self, config: Config, tokenizer: Tokenizer) -> None:
        """Raises ConfigError where the template does not go with the tokenizer, or the tokenizer has no token to end with."""
        if tokenizer.eos_token_id is None:
            raise ConfigError(f"the tokenizer of model.path = {config.model.path} has no end-of-text token to learn")
        self._eos = tokenizer.eos_token_id
        self._tokenizer = tokenizer
        self._data = config.data
        self._longest = config.model.max_length
        self.example(Conversation(row_id="", prompt=({"role": "user", "content": "?"},), response="</think>!"))

    def example(self, row: Conversation) -> Example:
        """Raises DataError for a conversation that the template refuses, and for thinking that is opened and not closed."""
        text, response = self._texts(row)
        prompt = self._tokenizer.encode(text, add_special_tokens=self._data.template not in CHAT_TEMPLATES)
        if not prompt:
            raise DataError("the prompt has no token, so nothing predicts the response's first")
        completion = [*self._tokenizer.encode(response, add_special_tokens=False), self._eos]
        return Example(prompt=np.asarray(prompt, dtype=np.int32), completion=np.asarray(completion, dtype=np.int32))

    def fits(self, row: Conversation) -> bool:
        """Whether the conversation has at most `model.max_length` tokens. Tokenises only what has more bytes than that.

        Raises DataError as `example` does.
        """
        text, response = self._texts(row)
        # A token stands for at least a byte, apart from a few that a tokenizer puts around the text.
        return len(text.encode()) + len(response.encode()) + 8 <= self._longest or (
            self.example(row).tokens <= self._longest
        )

    def _texts(self, row: Conversation) -> tuple[str, str]:
        data = self._data
        text = render(data.template, row.prompt, self._tokenizer, data.system_prompt, data.template_args)
        response = row.response
        if not (opening := opening_of(text)):
            return text, response
        if "</think>" not in response:  # the model would learn to give its answer as thinking
            raise DataError(
                f"the prompt opens <think> (data.template = {self._data.template}) and the response has no </think>: let an "
                "answer without thinking begin with <think></think> (curation.empty_thinking), or choose another template"
            )
        if response.lstrip().startswith("<think>"):
            response = response.lstrip()
            for character in opening:  # what the prompt has said already: the tag, and perhaps the end of its line
                response = response.removeprefix(character)
        return text, response


class Examples:
    """Some rows of some sources, numbered from 0; with `keep`, each is tokenised once and kept."""

    def __init__(self, stores: Sequence[tuple[SourceConfig, RowStore]], framing: Framing, *, keep: bool) -> None:
        self._kept: dict[int, Example] | None = {} if keep else None
        self._stores = stores
        self._framing = framing
        self._source, self._row = array("i"), array("q")

    def add(self, source: int, row: int) -> None:
        """Take a row in: the number of its source, and its own in there."""
        self._source.append(source)
        self._row.append(row)

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, i: int) -> Example:
        """Raises DataError where the file has changed since it was looked through."""
        if self._kept is not None and i in self._kept:
            return self._kept[i]
        config, store = self._stores[self._source[i]]
        number = self._row[i]
        example = self._framing.example(parse_conversation(store.raw(number), number, config.columns))
        if self._kept is not None:
            self._kept[i] = example
        return example


@dataclass(frozen=True, slots=True, kw_only=True)
class SftData:
    """What a run trains on and is measured on. Producer: `read_data`."""

    train: Examples
    held_out: dict[str, Examples]  # by source; or one named HELD_OUT
    left_out: dict[str, int]  # conversations by reason
    digest: str  # of every conversation that is used, and of which it is used for

    def facts(self) -> dict[str, Any]:
        """What a run folder keeps of them."""
        return {
            "digest": self.digest,
            "conversations": len(self.train),
            "held_out": {name: len(examples) for name, examples in self.held_out.items()},
            "left_out": self.left_out,
        }


def total_steps(config: Config, conversations: int) -> int:
    """Optimiser steps of a run: epochs x ceil(conversations / batch size). Raises ConfigError where warm-up is longer."""
    steps = config.sft.epochs * math.ceil(conversations / config.sft.batch_size)
    if config.learner.optimizer.warmup_steps > steps:
        raise ConfigError(
            f"learner.optimizer.warmup_steps={config.learner.optimizer.warmup_steps} is more than the run's {steps} steps "
            f"({conversations} conversations, sft.batch_size={config.sft.batch_size}, sft.epochs={config.sft.epochs})"
        )
    return steps


def read_data(config: Config, tokenizer: Tokenizer) -> SftData:
    """Look at every row once. Raises ConfigError for a source that is missing or malformed, and where nothing is left."""
    framing, left_out = Framing(config, tokenizer), Counter[str]()
    stores = [(source, _open(source)) for source in config.data.train]
    train, back = Examples(stores, framing, keep=config.sft.epochs > 1), Examples(stores, framing, keep=True)
    hashed = hashlib.blake2b(digest_size=16)
    share = 0.0 if config.data.evaluation else config.sft.held_out
    for s, (source, store) in enumerate(stores):
        for number, row, fits in _rows(source, store, framing):
            if not fits:
                left_out["too_long"] += 1
                continue
            examples = back if _belongs_to_held_out(row, share) else train
            examples.add(s, number)
            _hash_in(hashed, "train" if examples is train else HELD_OUT, row)
    if not len(train):
        counts = ", ".join(f"{n} {reason}" for reason, n in left_out.items()) or f"{len(back)} held out"
        raise ConfigError(f"data.train leaves no conversation to train on: {counts}")
    held_out = {HELD_OUT: back} if len(back) else {}
    for source in config.data.evaluation:
        store = _open(source)
        examples = Examples([(source, store)], framing, keep=True)
        for number, row, fits in _rows(source, store, framing):
            if fits:
                examples.add(0, number)
                _hash_in(hashed, source.name, row)
            else:
                left_out["too_long"] += 1
        if not len(examples):
            raise ConfigError(f"the evaluation source {source.name} has no conversation within model.max_length")
        held_out[source.name] = examples
    return SftData(train=train, held_out=held_out, left_out=dict(left_out), digest=hashed.hexdigest())


def _hash_in(hashed: Any, use: str, row: Conversation) -> None:
    text = json.dumps([use, [[m["role"], m["content"]] for m in row.prompt], row.response])
    hashed.update(text.encode() + b"\n")


def _open(source: SourceConfig) -> RowStore:
    subset, revision = source.params.get("subset"), source.params.get("revision")
    store = open_rows(source, subset=subset, revision=revision, fields=CONVERSATION_FIELDS)
    if not len(store):
        raise ConfigError(f"the source {source.name} ({source.path}) has no row")
    return store


def _rows(source: SourceConfig, store: RowStore, framing: Framing) -> Iterator[tuple[int, Conversation, bool]]:
    """(number, conversation, whether it fits) of every row. Raises ConfigError, with its place, at the first bad one."""
    for number in range(len(store)):
        try:
            row = parse_conversation(store.raw(number), number, source.columns)
            fits = framing.fits(row)
        except DataError as e:
            raise ConfigError(f"{store.place(number)}: {e}") from e
        yield number, row, fits


def _belongs_to_held_out(row: Conversation, share: float) -> bool:
    """By a hash of the prompt, so that two answers to one question are never on different sides."""
    text = "\n".join(message["content"] for message in row.prompt)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64
