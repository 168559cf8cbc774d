"""The problems of one source, in order and each once, for evaluations and sampling jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from r1ray.config.schema import DataConfig, SourceConfig
from r1ray.data.files import FileRows, compared_with
from r1ray.data.framing import FramedRow, Framer
from r1ray.data.synthetic import SyntheticRows
from r1ray.data.tokenizer import Tokenizer
from r1ray.errors import ConfigError
from r1ray.tasks.base import Split
from r1ray.types import PromptTask


class Problems(Sequence[PromptTask]):
    """Prompts made on access: a million of them take no memory until they are read."""

    def __init__(self, name: str, rows: SyntheticRows | FileRows) -> None:
        assert rows.length is not None, "the configuration's checks refuse a source without end"
        self._name = name
        self._rows = rows
        self._length = rows.length

    def __len__(self) -> int:
        return self._length

    @property
    def dropped(self) -> dict[str, int]:
        """Rows left out, by reason."""
        return dict(self._rows.dropped)

    @overload
    def __getitem__(self, place: int) -> PromptTask: ...

    @overload
    def __getitem__(self, place: slice) -> list[PromptTask]: ...

    def __getitem__(self, place: int | slice) -> PromptTask | list[PromptTask]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(self._length))]
        if not 0 <= place < self._length:
            raise IndexError(place)
        return prompt_task(self._name, self._rows.framed(place), place, 0)


def evaluation_prompts(source: SourceConfig, data: DataConfig, tokenizer: Tokenizer, seed: int) -> Problems:
    """The problems of an evaluation source; for a synthetic task, `limit` of its held-out split.

    Raises ConfigError if a prompt is longer than `max_prompt_tokens`: a benchmark is never shortened
    silently.
    """
    framer = Framer(data, tokenizer)
    synthetic = source.kind == "synthetic"
    rows = SyntheticRows(source, "heldout", framer, seed) if synthetic else FileRows(source, framer)
    if rows.dropped["too_long"] and not synthetic:
        raise ConfigError(
            f"{rows.dropped['too_long']} problems of the evaluation source {source.name} are longer than "
            f"data.max_prompt_tokens = {data.max_prompt_tokens}: raise it, so that the complete benchmark is measured"
        )
    return Problems(source.name, rows)


def sampling_prompts(source: SourceConfig, data: DataConfig, tokenizer: Tokenizer, seed: int) -> Problems:
    """The prompts of a source to draw samples from, filtered as for training.

    A synthetic task gives those of the source's `split`. Raises ConfigError as PromptSource does.
    """
    framer = Framer(data, tokenizer)
    if source.kind == "synthetic":
        split: Split = "heldout" if source.split == "heldout" else "train"
        return Problems(source.name, SyntheticRows(source, split, framer, seed))
    return Problems(source.name, FileRows(source, framer, evaluation=compared_with(data)))


def prompt_task(source: str, framed: FramedRow, index: int, epoch: int) -> PromptTask:
    """The PromptTask of a framed row."""
    row = framed.row
    return PromptTask(
        prompt_id=f"{source}/{row.row_id}",
        index=index,
        epoch=epoch,
        token_ids=framed.token_ids,
        messages=row.messages,
        answer=row.answer,
        task=source,
        meta=row.meta,
    )
