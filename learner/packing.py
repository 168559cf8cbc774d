"""Who trains on what: the same plan on every rank, computed from the manifest alone.

    manifest -- groups, strided --> minibatches -- sequences, by tokens --> ranks -- longest-first best fit --> micro-batches

A minibatch is one optimiser step. Within it every rank runs the same number of micro-batches, because ZeRO 2 and 3 exchange
gradients and parameters in each: a rank with fewer gets empty ones.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from r1ray.errors import ConfigError
from r1ray.types import BatchManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRef:
    """One prompt with one of its completions, by its place in the manifest."""

    group: int  # index into manifest.groups
    completion: int  # index into the group's completions
    tokens: int  # prompt and completion together


@dataclass(frozen=True, slots=True, kw_only=True)
class MinibatchPlan:
    """One optimiser step.

    Example: two ranks, 8 tokens a micro-batch, sequences of 6, 4, 3 and 2 tokens. Rank 0 gets 6 + 2, rank 1 gets 4 + 3:
    one micro-batch each, `micro_batches == (((6, 2),), ((4, 3),))`.
    """

    groups: tuple[int, ...]  # indices into manifest.groups
    micro_batches: tuple[
        tuple[tuple[SequenceRef, ...], ...], ...
    ]  # [ranks][micro-batches][sequences]; some may be empty


def plan_step(manifest: BatchManifest, *, minibatches: int, ranks: int, micro_batch_tokens: int) -> list[MinibatchPlan]:
    """Partition a batch; equal arguments give equal plans.

    Minibatch m gets the groups m, m + minibatches, ...: consecutive groups of the manifest completed one after the other,
    so they are alike in age and length. Raises ConfigError if a single sequence exceeds `micro_batch_tokens`.
    """
    plans = []
    for m in range(minibatches):
        groups = tuple(range(m, len(manifest.groups), minibatches))
        sequences = [
            SequenceRef(group=g, completion=c, tokens=manifest.groups[g].prompt_tokens + length)
            for g in groups
            for c, length in enumerate(manifest.groups[g].completion_tokens)
        ]
        plans.append(MinibatchPlan(groups=groups, micro_batches=divide(sequences, ranks, micro_batch_tokens)))
    return plans


def divide(
    sequences: Sequence[SequenceRef], ranks: int, micro_batch_tokens: int
) -> tuple[tuple[tuple[SequenceRef, ...], ...], ...]:
    """[ranks][micro-batches][sequences] of one optimiser step; some micro-batches may be empty.

    Raises ConfigError where a sequence alone exceeds `micro_batch_tokens`.
    """
    packed = [best_fit(share, micro_batch_tokens) for share in balance(sequences, ranks)]
    count = max(len(bins) for bins in packed)
    return tuple((*bins, *((),) * (count - len(bins))) for bins in packed)


def balance(sequences: Sequence[SequenceRef], ranks: int) -> list[list[SequenceRef]]:
    """Split so that the ranks' token counts are close: longest first, each to the rank with the fewest tokens so far."""
    shares: list[list[SequenceRef]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for sequence in sorted(sequences, key=lambda s: -s.tokens):
        rank = min(range(ranks), key=loads.__getitem__)
        shares[rank].append(sequence)
        loads[rank] += sequence.tokens
    return shares


def best_fit(sequences: Sequence[SequenceRef], capacity: int) -> list[tuple[SequenceRef, ...]]:
    """Pack into bins of `capacity` tokens: longest first, each into the fullest bin that still has room."""
    bins: list[list[SequenceRef]] = []
    room: list[tuple[int, int]] = []  # (tokens left, index of the bin), ascending
    for sequence in sorted(sequences, key=lambda s: -s.tokens):
        if sequence.tokens > capacity:
            raise ConfigError(
                f"a sequence of {sequence.tokens} tokens does not fit learner.micro_batch_tokens={capacity}: "
                "raise it to model.max_length at least"
            )
        at = bisect.bisect_left(room, (sequence.tokens, -1))
        left, index = room.pop(at) if at < len(room) else (capacity, len(bins))
        if index == len(bins):
            bins.append([])
        bins[index].append(sequence)
        bisect.insort(room, (left - sequence.tokens, index))
    return [tuple(b) for b in bins]
