"""Preferences as training examples of a reward model.

pairwise   {"prompt": ..., "chosen": ..., "rejected": ...}
pointwise  {"prompt": ..., "response": ..., "safe": true}      (either with `messages` in place of `prompt`)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from learner.examples import RowFormat, SupervisedData, read_sources
from r1ray.config.schema import Config, RewardModelConfig
from r1ray.data.rows import question_of, read_columns
from r1ray.data.tokenizer import Tokenizer
from r1ray.errors import ConfigError, DataError
from r1ray.rewards.learned.conversation import Part, conversation_ids, conversation_prompt, judged_part
from r1ray.rewards.learned.preference import Kind
from r1ray.types import Int32Array, Message

FIELDS: dict[Kind, tuple[str, ...]] = {
    "pairwise": ("prompt", "messages", "chosen", "rejected"),
    "pointwise": ("prompt", "messages", "response", "safe"),
}
_UNLIMITED = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """One row. Producer: `PreferenceFormat.parse`."""

    messages: tuple[Message, ...]
    responses: tuple[str, ...]  # the judged parts; pairwise: (chosen, rejected), pointwise: (response,)
    safe: bool | None = None  # pointwise only


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One tokenized row. Producer: `PreferenceFormat`. Consumers: `RewardModelRank`, `measure`."""

    sequences: tuple[Int32Array, ...]  # pairwise: (chosen, rejected), pointwise: (response,); prompts included
    lengths: tuple[int, ...]  # tokens of the judged part of each
    safe: bool | None = None  # pointwise only

    @property
    def tokens(self) -> int:
        """Tokens of all its sequences."""
        return sum(map(len, self.sequences))


def part_of(settings: RewardModelConfig) -> Part:
    """The part of a response that the model judges; `auto`: as in R1, the summary of pairs and all of a response."""
    summary = settings.judge == "summary" or (settings.judge == "auto" and settings.kind == "pairwise")
    return "summary" if summary else "response"


class PreferenceFormat(RowFormat[Preference, Example]):
    """Preferences of one kind, framed as the reward `model` frames what it scores."""

    noun = "preference"

    def __init__(self, config: Config, tokenizer: Tokenizer) -> None:
        settings = config.reward_model
        self._kind, self._part = settings.kind, part_of(settings)
        self._tokenizer = tokenizer
        self._longest = config.model.max_length
        self.fields = FIELDS[self._kind]

    def parse(self, raw: Any, number: int, columns: Mapping[str, str]) -> Preference:
        """See RowFormat."""
        values = read_columns(raw, self.fields, columns)
        messages = question_of(values, columns)
        names = ("chosen", "rejected") if self._kind == "pairwise" else ("response",)
        responses = tuple(judged_part(_text(values, name), self._part) for name in names)
        if self._kind == "pairwise":
            return Preference(messages=messages, responses=responses)
        if not isinstance(safe := values["safe"], bool):
            raise DataError(f"safe = {safe!r:.40}: expected true or false")
        return Preference(messages=messages, responses=responses, safe=safe)

    def fits(self, row: Preference) -> bool:
        """See RowFormat. Tokenizes only a row that has more bytes than `model.max_length`."""
        longest = max(len(response.encode()) for response in row.responses)
        prompt = conversation_prompt(self._tokenizer, row.messages)
        # Each token is at least one byte, apart from a few that a tokenizer adds around the text.
        return len(prompt.encode()) + longest + 8 <= self._longest or (
            max(map(len, self.example(row).sequences)) <= self._longest
        )

    def example(self, row: Preference) -> Example:
        """See RowFormat."""
        tokenizer = self._tokenizer
        ids = [conversation_ids(tokenizer, row.messages, response, _UNLIMITED) for response in row.responses]
        return Example(
            sequences=tuple(np.asarray(each, dtype=np.int32) for each in ids),
            lengths=tuple(len(tokenizer.encode(text, add_special_tokens=False)) for text in row.responses),
            safe=row.safe,
        )

    def prompt(self, row: Preference) -> Sequence[Message]:
        """See RowFormat."""
        return row.messages

    def content(self, row: Preference) -> list[Any]:
        """See RowFormat."""
        return [*row.responses, row.safe]


def _text(values: Mapping[str, Any], name: str) -> str:
    """A response; unlike a prompt it may be empty."""
    if not isinstance(value := values[name], str):
        raise DataError(f"{name} = {value!r:.40}: expected a string")
    return value


def read_data(config: Config, tokenizer: Tokenizer) -> SupervisedData[Example]:
    """Read the preferences of a run.

    Raises ConfigError as `read_sources` does, and if nothing is held out: the accuracy would be unknown.
    """
    data = read_sources(config, "reward-model", PreferenceFormat(config, tokenizer))
    if not data.held_out:
        raise ConfigError(
            f"reward_model.held_out = {config.reward_model.held_out} holds out none of {len(data.train)} rows: raise "
            "it, "
            "or name a source in data.evaluation"
        )
    return data
