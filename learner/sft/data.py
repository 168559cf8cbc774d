"""Conversations as training examples, tokenised when they are asked for.

    row --template--> prompt text --tokenizer--> prompt [P]
        `--response + end of text-------------> completion [C], which alone is learned

The prompt is framed exactly as reinforcement learning and evaluation frame it. Rows stay in their files; what is held in
memory is which of them are used, so that a million long conversations cost a few megabytes.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from r1ray.config.schema import Config, SourceConfig
from r1ray.data.conversations import CONVERSATION_FIELDS, Conversation, parse_conversation
from r1ray.data.stores import RowStore, open_rows
from r1ray.data.templates import CHAT_TEMPLATES, THINK_OPENING, render
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
        self.example(Conversation(row_id="", prompt=({"role": "user", "content": "?"},), response="!"))

    def example(self, row: Conversation) -> Example:
        """Raises DataError for a conversation that the template refuses."""
        text, response = self._texts(row)
        prompt = self._tokenizer.encode(text, add_special_tokens=self._data.template not in CHAT_TEMPLATES)
        completion = [*self._tokenizer.encode(response, add_special_tokens=False), self._eos]
        return Example(prompt=np.asarray(prompt, dtype=np.int32), completion=np.asarray(completion, dtype=np.int32))

    def fits(self, row: Conversation) -> bool:
        """Whether the conversation has at most `model.max_length` tokens. Tokenises only what has more bytes than that."""
        text, response = self._texts(row)
        # A token stands for at least a byte, apart from a few that a tokenizer puts around the text.
        return len(text.encode()) + len(response.encode()) + 8 <= self._longest or (
            self.example(row).tokens <= self._longest
        )

    def _texts(self, row: Conversation) -> tuple[str, str]:
        text = render(self._data.template, row.prompt, self._tokenizer, self._data.system_prompt)
        response = row.response
        if text.endswith(THINK_OPENING):  # the prompt has opened the thinking already
            response = response.removeprefix("<think>").removeprefix("\n")
        return text, response


class Examples:
    """Some rows of some sources, numbered from 0."""

    def __init__(self, stores: Sequence[tuple[SourceConfig, RowStore]], framing: Framing) -> None:
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
        config, store = self._stores[self._source[i]]
        number = self._row[i]
        return self._framing.example(parse_conversation(store.raw(number), number, config.columns))


@dataclass(frozen=True, slots=True, kw_only=True)
class SftData:
    """What a run trains on and is measured on. Producer: `read_data`."""

    train: Examples
    held_out: dict[str, Examples]  # by source; or one named HELD_OUT
    left_out: dict[str, int]  # conversations by reason


def read_data(config: Config, tokenizer: Tokenizer) -> SftData:
    """Look at every row once. Raises ConfigError for a source that is missing or malformed, and where nothing is left."""
    framing, left_out = Framing(config, tokenizer), Counter[str]()
    stores = [(source, _open(source)) for source in config.data.train]
    train, back = Examples(stores, framing), Examples(stores, framing)
    share = 0.0 if config.data.evaluation else config.sft.held_out
    for s, (source, store) in enumerate(stores):
        for number, row in _rows(source, store):
            if not framing.fits(row):
                left_out["too_long"] += 1
            elif _belongs_to_held_out(row, share):
                back.add(s, number)
            else:
                train.add(s, number)
    if not len(train):
        counts = ", ".join(f"{n} {reason}" for reason, n in left_out.items()) or f"{len(back)} held out"
        raise ConfigError(f"data.train leaves no conversation to train on: {counts}")
    held_out = {HELD_OUT: back} if len(back) else {}
    for source in config.data.evaluation:
        store = _open(source)
        examples = Examples([(source, store)], framing)
        for number, row in _rows(source, store):
            if framing.fits(row):
                examples.add(0, number)
            else:
                left_out["too_long"] += 1
        held_out[source.name] = examples
    return SftData(train=train, held_out=held_out, left_out=dict(left_out))


def _open(source: SourceConfig) -> RowStore:
    store = open_rows(source, fields=CONVERSATION_FIELDS)
    if not len(store):
        raise ConfigError(f"the source {source.name} ({source.path}) has no row")
    return store


def _rows(source: SourceConfig, store: RowStore) -> Iterator[tuple[int, Conversation]]:
    """(number, conversation) of every row. Raises ConfigError at the first one that is malformed."""
    for number in range(len(store)):
        try:
            yield number, parse_conversation(store.raw(number), number, source.columns)
        except DataError as e:
            raise ConfigError(f"{store.place(number)}: {e}") from e


def _belongs_to_held_out(row: Conversation, share: float) -> bool:
    """By a hash of the prompt, so that two answers to one question are never on different sides."""
    text = "\n".join(message["content"] for message in row.prompt)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64
