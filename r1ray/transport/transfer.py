"""Outcome of one weight transfer at each end, and the list of weights that both ends agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TransferSpecs = Sequence[tuple[str, str, tuple[int, ...]]]
"""Name, dtype (torch's name without "torch.") and shape of each tensor in the order of sending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One transfer at the learner. Producer: a learner rank. Consumer: the control loop."""

    digest: str  # of the weights sent; empty if sync.digest is none
    seconds: float
    wire_bytes: int  # to each receiver; fewer than the weights have with sync.encoding=delta


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """One transfer at a rollout worker. Producer: the worker. Consumer: the control loop."""

    version: int
    digest: str  # of the bytes received
    apply_s: float  # how long generation was paused
    digest_s: float  # of `apply_s`: reading back the served weights
    recomputed_tokens: int = 0  # of sequences under way, whose keys and values the new policy computes again
