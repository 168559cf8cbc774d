"""Preferences from JSON lines, and their division into what is trained on and what is held out.

pairwise   {"prompt": ..., "chosen": ..., "rejected": ...}
pointwise  {"prompt": ..., "response": ..., "safe": true}      (either with `messages` for `prompt`)
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from r1ray.data.tokenizer import Tokenizer
from r1ray.errors import ConfigError, DataError
from r1ray.rewards.learned.conversation import Part, conversation_ids, judged_part
from r1ray.rewards.learned.preference import Kind
from r1ray.types import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A row as token ids. Producer: `read_examples`. Consumers: training, report."""

    prompt: str  # tells which rows must be held out together
    sequences: tuple[tuple[int, ...], ...]  # pairwise: (chosen, rejected); pointwise: (response,)
    lengths: tuple[int, ...]  # tokens of the judged part of each
    safe: bool | None = None  # pointwise only

    @property
    def tokens(self) -> int:
        """Of all its sequences."""
        return sum(map(len, self.sequences))


def read_examples(
    file: Path, tokenizer: Tokenizer, *, kind: Kind, judge: Part, max_length: int
) -> tuple[list[Example], int]:
    """The examples of a file, and how many rows were left out because a sequence has more than `max_length` tokens.

    Raises ConfigError for a file that cannot be read, and for the first row that is not of its kind, with its line.
    """
    examples, too_long = [], 0
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        try:
            messages, responses, safe = _row(line, kind)
            parts = [judged_part(response, judge) for response in responses]
            sequences = tuple(tuple(conversation_ids(tokenizer, messages, part, 10**9)) for part in parts)
        except DataError as e:
            raise ConfigError(f"{file}, line {number}: {e}") from e
        if max(map(len, sequences)) > max_length:
            too_long += 1
            continue
        lengths = tuple(len(tokenizer.encode(part, add_special_tokens=False)) for part in parts)
        prompt = json.dumps(messages, sort_keys=True)
        examples.append(Example(prompt=prompt, sequences=sequences, lengths=lengths, safe=safe))
    return examples, too_long


def _lines(file: Path) -> Iterator[str]:
    """Line by line, which only a newline ends: a text may hold U+2028 and the other marks that str.splitlines cuts at."""
    try:
        with file.open(encoding="utf-8", newline="\n") as lines:
            yield from lines
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{file} cannot be read as UTF-8 text: {e}") from e


def hold_out(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """(trained on, held out): of the prompts, not the rows, a `share`, at least one, so that no prompt is in both.

    Raises ConfigError where a side would be empty.
    """
    prompts = sorted({e.prompt for e in examples})
    if len(prompts) < 2:
        raise ConfigError(f"{len(prompts)} different prompts that fit into max_length: at least 2 are needed")
    count = min(len(prompts) - 1, math.ceil(share * len(prompts)))
    chosen = {prompts[i] for i in np.random.default_rng(seed).permutation(len(prompts))[:count]}
    return [e for e in examples if e.prompt not in chosen], [e for e in examples if e.prompt in chosen]


def _row(line: str, kind: Kind) -> tuple[tuple[Message, ...], list[str], bool | None]:
    try:
        row = json.loads(line)
    except ValueError as e:
        raise DataError(f"no JSON: {e}") from e
    if not isinstance(row, dict):
        raise DataError("no JSON object")
    messages = _messages(row)
    if kind == "pairwise":
        return messages, [_text(row, "chosen"), _text(row, "rejected")], None
    if not isinstance(row.get("safe"), bool):
        raise DataError(f"`safe` = {row.get('safe')!r:.40} must be true or false")
    return messages, [_text(row, "response")], row["safe"]


def _messages(row: dict[str, Any]) -> tuple[Message, ...]:
    if "messages" not in row:
        return ({"role": "user", "content": _text(row, "prompt")},)
    messages = row["messages"]
    good = isinstance(messages, list) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages
    )
    if not good or not messages:
        raise DataError("`messages` must be a list of objects with the texts `role` and `content`")
    return tuple({"role": m["role"], "content": m["content"]} for m in messages)


def _text(row: dict[str, Any], key: str) -> str:
    if not isinstance(row.get(key), str):
        raise DataError(f"`{key}` = {row.get(key)!r:.40} must be a text")
    text: str = row[key]
    return text
