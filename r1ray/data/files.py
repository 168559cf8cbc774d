"""File sources: rows with the source's parameters applied and its filters passed."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

from r1ray.config.schema import DataConfig, SourceConfig
from r1ray.data.framing import FramedRow, Framer
from r1ray.data.grams import Grams
from r1ray.data.presets import with_preset
from r1ray.data.rows import Row, parse_row
from r1ray.data.stores import open_rows
from r1ray.errors import ConfigError, DataError, IntegrityError


@dataclass(frozen=True, slots=True, kw_only=True)
class FileParams:
    """`params` of a file source."""

    answer_after: str | None = None  # the answer is what follows the last of these, e.g. "####" in GSM8K
    suffix: str = ""  # put after the user's last message, e.g. "\nPut your final answer within \\boxed{}."
    min_pass_rate: float = 0.0  # rows outside [min, max] are dropped; rows without a pass rate stay
    max_pass_rate: float = 1.0
    answer_contains: str | None = None  # rows whose answer lacks this text are dropped, e.g. "\\boxed{"
    subset: str | None = None  # of a Hugging Face data set
    revision: str | None = None  # of a Hugging Face data set

    @classmethod
    def of(cls, source: SourceConfig) -> FileParams:
        """The parameters of a source. Raises ConfigError for one that does not exist."""
        source = with_preset(source)
        known = [f.name for f in fields(cls)]
        for key in source.params:
            if key not in known:
                raise ConfigError(
                    f"the source {source.name} has no parameter {key!r}: expected one of {', '.join(known)}"
                )
        return cls(**source.params)

    def with_final_answer(self, row: Row) -> Row:
        """The row with its final answer only. Raises DataError if the mark `answer_after` is missing."""
        if self.answer_after is None:
            return row
        if not isinstance(row.answer, str) or self.answer_after not in row.answer:
            raise DataError(f"the answer does not contain the mark {self.answer_after!r}")
        final = row.answer.rpartition(self.answer_after)[2].strip()
        if not final:
            raise DataError(f"the answer ends with the mark {self.answer_after!r}: expected the final answer behind it")
        return replace(row, answer=final)

    def with_suffix(self, row: Row) -> Row:
        """The row with `suffix` at the end of the user's last message."""
        *before, last = row.messages
        return replace(row, messages=(*before, {**last, "content": last["content"] + self.suffix}))


class FileRows:
    """The rows of a file source that pass its filters, numbered anew from 0."""

    def __init__(self, source: SourceConfig, framer: Framer, evaluation: Sequence[SourceConfig] = ()) -> None:
        """Read every row once. `evaluation`: sources whose problems must not occur among the rows.

        Raises ConfigError at the first malformed row, and if no row is left.
        """
        self._file = _File(source)
        self._framer = framer
        self.dropped: Counter[str] = Counter()
        grams = Grams()
        for other in evaluation:
            grams.add_all(row.messages for row in _File(other).rows())
        self._kept = array("q")
        for number, row in enumerate(self._file.rows()):
            if (reason := self._reason_to_drop(row, grams)) is None:
                self._kept.append(number)
            else:
                self.dropped[reason] += 1
        if not self._kept:
            counts = ", ".join(f"{n} {reason}" for reason, n in self.dropped.items()) or "the file is empty"
            raise ConfigError(f"the source {source.name} ({source.path}) has no row to use: {counts}")
        self.length = len(self._kept)

    def framed(self, place: int) -> FramedRow:
        """The row at `place` of [0, length)."""
        row = self._file.row(self._kept[place])
        framed = self._framer.frame(self._file.params.with_suffix(row))
        if framed is None:
            raise IntegrityError(
                f"the prompt of row {row.row_id} exceeds data.max_prompt_tokens, but did not at the start of the "
                "run: the file has changed; restore it, or start a new run"
            )
        return framed

    def _reason_to_drop(self, row: Row, grams: Grams) -> str | None:
        needed = self._file.params.answer_contains
        if needed is not None and needed not in (row.answer if isinstance(row.answer, str) else ""):
            return "no_answer"
        low, high = self._file.params.min_pass_rate, self._file.params.max_pass_rate
        if row.pass_rate is not None and not low <= row.pass_rate <= high:
            return "pass_rate"
        if not self._framer.fits(self._file.params.with_suffix(row)):
            return "too_long"
        return "contaminated" if grams.shares(row.messages) else None  # without the suffix, which all may share


def compared_with(data: DataConfig) -> list[SourceConfig]:
    """The file sources that `data` compares training prompts with. Synthetic tasks have disjoint splits already."""
    if not data.decontaminate:
        return []
    return [s for s in (*data.evaluation, *data.decontaminate_against) if s.kind != "synthetic"]


class _File:
    """The rows of a file source before the suffix is added."""

    def __init__(self, source: SourceConfig) -> None:
        self.params = FileParams.of(source)
        self._source = with_preset(source)
        self._store = open_rows(source, subset=self.params.subset, revision=self.params.revision)

    def rows(self) -> Iterator[Row]:
        return (self.row(number) for number in range(len(self._store)))

    def row(self, number: int) -> Row:
        try:
            return self.params.with_final_answer(parse_row(self._store.raw(number), number, self._source.columns))
        except DataError as e:
            place = self._store.place(number)
            raise ConfigError(f"{place}: {e} (`r1ray data check` lists every such row)") from e
