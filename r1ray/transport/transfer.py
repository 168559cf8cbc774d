"""Outcome of one weight transfer at each end, and the list of weights that both ends agree on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

TransferSpecs = Sequence[tuple[str, str, tuple[int, ...]]]
"""Name, dtype (torch's name without "torch.") and shape of each weight."""

Share = tuple[int, int, int]
"""What a learner rank sends of a weight: its index in the specs, the first of its flattened values, and their number.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightLayout:
    """The weights of a run, and who sends what of them. Producer: the control loop. Consumers: rollout workers."""

    weights: TransferSpecs
    shares: Sequence[Sequence[Share]]  # by sending rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One transfer at the learner. Producer: a learner rank. Consumer: the control loop."""

    digest: str  # of what this rank sent; empty if sync.digest is none, or if it sent nothing
    seconds: float
    wire_bytes: int  # to each host with receivers; fewer than the values have with sync.encoding=delta


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """One transfer at a rollout worker. Producer: the worker. Consumer: the control loop."""

    version: int
    digest: str  # of the bytes received
    apply_s: float  # how long generation was paused
    digest_s: float  # of `apply_s`: reading back the served weights
    recomputed_tokens: int = 0  # of sequences under way, whose keys and values the new policy computes again


def combined(digests: Sequence[str]) -> str:
    """The digest of several streams, in the order of their senders; empty if they have none."""
    if len(digests) == 1 or not all(digests):
        return digests[0]
    return hashlib.sha256(",".join(digests).encode()).hexdigest()[:32]


def together(sent: Sequence[Sent]) -> Sent:
    """What all senders have sent."""
    return Sent(
        digest=combined([s.digest for s in sent]),
        seconds=max(s.seconds for s in sent),
        wire_bytes=sum(s.wire_bytes for s in sent),
    )
