"""Definition of a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from r1ray.config.schema import SourceConfig

BOXED = "\nPut your final answer within \\boxed{}."
"""Advice of the model card of DeepSeek-R1 for mathematics."""

Row = dict[str, Any]
"""id, prompt, answer, and other fields of the verifier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Problems with an exact judge. Producers: `registry`. Consumer: `prepare`."""

    name: str
    source: SourceConfig  # default location of the problems; `--data` overrides it
    columns: tuple[str, ...] = ()  # of a published row; empty: a synthetic task
    question: str = ""  # the column with the bare question
    row: Callable[[Mapping[str, Any], int], Row] | None = (
        None  # converts a published row and its number; None: a synthetic task
    )
    subset: str | None = None  # on the hub
    verifier: str = "math"
    k: int = 1  # samples per problem
