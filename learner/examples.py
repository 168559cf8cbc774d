"""Rows of supervised training: which are trained on, which are held out, and each as tokens when it is needed.

    source --RowStore--> row --RowFormat--> example (tokens)

Rows stay in their files. Examples that are used more than once (several epochs, evaluations) are kept, so each is
tokenized once. `learner.sft.data` and `learner.preference.rows` are the two formats.
"""

from __future__ import annotations

import abc
import hashlib
import json
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from r1ray.config.rules import SupervisedUse, supervised_settings
from r1ray.config.schema import Config, SourceConfig
from r1ray.data.stores import RowStore, open_rows
from r1ray.errors import ConfigError, DataError
from r1ray.types import Message

HELD_OUT = "held_out"
"""Name of the held-out share if no evaluation source is configured."""


class HasTokens(Protocol):
    """An example of any format."""

    @property
    def tokens(self) -> int:
        """Number of its tokens, in all its sequences."""
        ...


Row = TypeVar("Row")
Example = TypeVar("Example", bound=HasTokens)


class RowFormat(abc.ABC, Generic[Row, Example]):
    """What the rows of one kind of training hold, and how a row becomes an example."""

    noun: ClassVar[str]
    """What one row is called in messages."""

    fields: Sequence[str]
    """The columns that are read, under these names unless `columns` of the source gives others."""

    @abc.abstractmethod
    def parse(self, raw: Any, number: int, columns: Mapping[str, str]) -> Row:
        """The row `raw`, which has this number in its source. Raises DataError for what is wrong with it."""

    @abc.abstractmethod
    def fits(self, row: Row) -> bool:
        """Whether the row has at most `model.max_length` tokens. Raises DataError as `example` does."""

    @abc.abstractmethod
    def example(self, row: Row) -> Example:
        """The row as tokens. Raises DataError for a row that cannot be framed."""

    @abc.abstractmethod
    def prompt(self, row: Row) -> Sequence[Message]:
        """The messages before the response; rows with equal prompts are held out together."""

    @abc.abstractmethod
    def content(self, row: Row) -> list[Any]:
        """Everything else that the row says, as JSON; part of the data's digest."""


class Examples(Generic[Example]):
    """Some rows of some sources, numbered from 0; with `keep`, each is tokenized once and kept."""

    def __init__(
        self, stores: Sequence[tuple[SourceConfig, RowStore]], form: RowFormat[Any, Example], *, keep: bool
    ) -> None:
        self._kept: dict[int, Example] | None = {} if keep else None
        self._stores = stores
        self._format = form
        self._source, self._row = array("i"), array("q")

    def add(self, source: int, row: int) -> None:
        """Append a row, by the number of its source and its number in there."""
        self._source.append(source)
        self._row.append(row)

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, i: int) -> Example:
        """Raises DataError if the file has changed since it was read."""
        if self._kept is not None and i in self._kept:
            return self._kept[i]
        config, store = self._stores[self._source[i]]
        number = self._row[i]
        example = self._format.example(self._format.parse(store.raw(number), number, config.columns))
        if self._kept is not None:
            self._kept[i] = example
        return example


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedData(Generic[Example]):
    """What a run trains on and is evaluated on. Producer: `read_sources`. Consumer: `SupervisedRank`."""

    train: Examples[Example]
    held_out: dict[str, Examples[Example]]  # by source; or one named HELD_OUT
    left_out: dict[str, int]  # rows by reason
    digest: str  # of every row that is used, and of its use
    noun: str  # what a row is called

    def facts(self) -> dict[str, Any]:
        """The record of the data that a run folder keeps."""
        return {
            "digest": self.digest,
            f"{self.noun}s": len(self.train),
            "held_out": {name: len(examples) for name, examples in self.held_out.items()},
            "left_out": self.left_out,
        }


def total_steps(config: Config, use: SupervisedUse, rows: int) -> int:
    """Optimizer steps of a run: epochs x ceil(rows / batch size). Raises ConfigError if the warm-up is longer."""
    settings, section = supervised_settings(config, use), use.replace("-", "_")
    steps = settings.epochs * math.ceil(rows / settings.batch_size)
    if config.learner.optimizer.warmup_steps > steps:
        raise ConfigError(
            f"learner.optimizer.warmup_steps={config.learner.optimizer.warmup_steps} is more than the run's {steps} "
            f"steps ({rows} rows, {section}.batch_size={settings.batch_size}, {section}.epochs={settings.epochs})"
        )
    return steps


def read_sources(config: Config, use: SupervisedUse, form: RowFormat[Any, Example]) -> SupervisedData[Example]:
    """Read every row once. Raises ConfigError for a source that is missing or malformed, and if no row is left."""
    settings, left_out = supervised_settings(config, use), Counter[str]()
    stores = [(source, _open(source, form.fields)) for source in config.data.train]
    train, back = Examples(stores, form, keep=settings.epochs > 1), Examples(stores, form, keep=True)
    hashed = hashlib.blake2b(digest_size=16)
    share = 0.0 if config.data.evaluation else settings.held_out
    for s, (source, store) in enumerate(stores):
        for number, row, fits in _rows(source, store, form):
            if not fits:
                left_out["too_long"] += 1
                continue
            examples = back if _belongs_to_held_out(form.prompt(row), share) else train
            examples.add(s, number)
            _hash_in(hashed, "train" if examples is train else HELD_OUT, form, row)
    if not len(train):
        counts = ", ".join(f"{n} {reason}" for reason, n in left_out.items()) or f"{len(back)} held out"
        raise ConfigError(f"data.train leaves no {form.noun} to train on: {counts}")
    held_out = {HELD_OUT: back} if len(back) else {}
    for source in config.data.evaluation:
        store = _open(source, form.fields)
        examples = Examples([(source, store)], form, keep=True)
        for number, row, fits in _rows(source, store, form):
            if fits:
                examples.add(0, number)
                _hash_in(hashed, source.name, form, row)
            else:
                left_out["too_long"] += 1
        if not len(examples):
            raise ConfigError(f"the evaluation source {source.name} has no {form.noun} within model.max_length")
        held_out[source.name] = examples
    return SupervisedData(
        train=train, held_out=held_out, left_out=dict(left_out), digest=hashed.hexdigest(), noun=form.noun
    )


def _hash_in(hashed: Any, use: str, form: RowFormat[Any, Any], row: Any) -> None:
    text = json.dumps([use, [[m["role"], m["content"]] for m in form.prompt(row)], *form.content(row)])
    hashed.update(text.encode() + b"\n")


def _open(source: SourceConfig, fields: Sequence[str]) -> RowStore:
    subset, revision = source.params.get("subset"), source.params.get("revision")
    store = open_rows(source, subset=subset, revision=revision, fields=fields)
    if not len(store):
        raise ConfigError(f"the source {source.name} ({source.path}) has no row")
    return store


def _rows(source: SourceConfig, store: RowStore, form: RowFormat[Row, Any]) -> Iterator[tuple[int, Row, bool]]:
    """(number, row, whether it fits) of every row. Raises ConfigError with the place of the first bad one."""
    for number in range(len(store)):
        try:
            row = form.parse(store.raw(number), number, source.columns)
            fits = form.fits(row)
        except DataError as e:
            raise ConfigError(f"{store.place(number)}: {e}") from e
        yield number, row, fits


def _belongs_to_held_out(prompt: Sequence[Message], share: float) -> bool:
    """Decide by a hash of the prompt, so that two answers to one question are always on the same side."""
    text = "\n".join(message["content"] for message in prompt)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64
