"""Outcome of one weight transfer at each end, and the list of weights that both ends agree on."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

TransferSpecs = Sequence[tuple[str, str, tuple[int, ...]]]
"""Name, dtype (torch's name without "torch.") and shape of each tensor in the order of sending."""


def bytes_of(specs: TransferSpecs) -> int:
    """Size of all tensors together. Needs no torch: the names of its dtypes end in their bits or begin with them."""
    return sum(math.prod(shape) * _bits(dtype) // 8 for _, dtype, shape in specs)


def _bits(dtype: str) -> int:
    """Example: 16 for bfloat16, 8 for float8_e4m3fn and bool."""
    found = re.search(r"\d+", dtype)
    return int(found[0]) if found else 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One transfer at the learner. Producer: a learner rank. Consumer: the control loop."""

    digest: str  # of the bytes sent; empty if sync.digest is none
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """One transfer at a rollout worker. Producer: the worker. Consumer: the control loop."""

    version: int
    digest: str  # of the bytes received
    apply_s: float  # how long generation was paused
    digest_s: float  # of `apply_s`: reading back the served weights
    recomputed_tokens: int = 0  # of sequences under way, whose keys and values the new policy computes again
