"""What a benchmark is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from r1ray.config.schema import SourceConfig

BOXED = "\nPut your final answer within \\boxed{}."
"""Advice of the model card of DeepSeek-R1 for mathematics."""

Row = dict[str, Any]
"""id, prompt, answer, and what else the verifier reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Problems with an exact judge. Producers: `registry`. Consumer: `prepare`."""

    name: str
    source: SourceConfig  # where the problems are, unless `--data` says otherwise
    columns: tuple[str, ...] = ()  # of a row as it is published; empty: a synthetic task, which makes its own
    question: str = ""  # the column with what is asked, without what is put around it
    row: Callable[[Mapping[str, Any], int], Row] | None = (
        None  # from a published row and its number to ours; None: synthetic
    )
    subset: str | None = None  # on the hub
    verifier: str = "math"
    k: int = 1  # samples of a problem
