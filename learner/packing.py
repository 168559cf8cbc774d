"""Who trains on what: the same plan on every rank, computed from the manifest and the advantages alone.

    manifest -- groups, strided --> minibatches -- units, by tokens --> ranks -- best fit --> micro-batches

A minibatch is one optimiser step. Within it every rank runs the same number of micro-batches, because ZeRO 2 and 3
exchange gradients and parameters in each: a rank with fewer gets empty ones. A unit is what is packed together: a
sequence alone, or, with shared prompts, the completions of a group behind one copy of their prompt.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from r1ray.errors import ConfigError
from r1ray.types import BatchManifest, GroupSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRef:
    """One prompt with one of its completions, by its place in the manifest."""

    group: int  # index into manifest.groups
    completion: int  # index into the group's completions
    tokens: int  # prompt and completion together
    shared: int = 0  # tokens of the prompt if the sequences of a group have it once in a micro-batch, else 0
    stands_for: tuple[int, ...] = ()  # completions of the group that the step leaves out: this one is their sample


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


Silent = Sequence[Sequence[Sequence[int]]]
"""[groups of the manifest][kinds][completions]: those without a gradient;
metrics treat the completions of a kind alike.
"""

Unit = list[SequenceRef]


def plan_step(
    manifest: BatchManifest,
    *,
    minibatches: int,
    ranks: int,
    micro_batch_tokens: int,
    share_prompts: bool = False,
    silent: Silent = (),
) -> list[MinibatchPlan]:
    """Partition a batch; equal arguments give equal plans.

    Minibatch m gets the groups m, m + minibatches, ...: consecutive groups of the manifest completed one after the
    other, so they are alike in age and length. Of the `silent` completions of a kind in a group only one is packed, as
    a sample. Raises ConfigError if a single sequence exceeds `micro_batch_tokens`.
    """
    plans = []
    for m in range(minibatches):
        groups = tuple(range(m, len(manifest.groups), minibatches))
        sequences = [
            ref
            for g in groups
            for ref in _sequences(manifest.groups[g], g, silent[g] if silent else (), manifest.step, share_prompts)
        ]
        plans.append(MinibatchPlan(groups=groups, micro_batches=divide(sequences, ranks, micro_batch_tokens)))
    return plans


def _sequences(
    group: GroupSummary, index: int, silent: Sequence[Sequence[int]], step: int, share_prompts: bool
) -> list[SequenceRef]:
    """The sequences of a group to pack. The choice of a sample varies with step and group, not with what is sampled."""
    samples = {kind[(step + index) % len(kind)]: kind for kind in silent}
    left_out = {c for kind in silent for c in kind} - set(samples)
    return [
        SequenceRef(
            group=index,
            completion=c,
            tokens=group.prompt_tokens + length,
            shared=group.prompt_tokens if share_prompts else 0,
            stands_for=tuple(other for other in samples.get(c, ()) if other != c),
        )
        for c, length in enumerate(group.completion_tokens)
        if c not in left_out
    ]


def packed_tokens(sequences: Sequence[SequenceRef]) -> int:
    """Rows that these sequences take in one micro-batch, a shared prompt counted once."""
    shared = {s.group: s.shared for s in sequences}
    return sum(s.tokens - s.shared for s in sequences) + sum(shared.values())


def divide(
    sequences: Sequence[SequenceRef], ranks: int, micro_batch_tokens: int
) -> tuple[tuple[tuple[SequenceRef, ...], ...], ...]:
    """[ranks][micro-batches][sequences] of one optimiser step; some micro-batches may be empty.

    Sequences of a group with a shared prompt stand side by side. Raises ConfigError if a sequence alone exceeds
    `micro_batch_tokens`.
    """
    shares = balance(make_units(sequences, micro_batch_tokens), ranks, micro_batch_tokens)
    packed = [[_side_by_side(units) for units in best_fit(share, micro_batch_tokens)] for share in shares]
    count = max(len(bins) for bins in packed)
    return tuple((*bins, *((),) * (count - len(bins))) for bins in packed)


def make_units(sequences: Sequence[SequenceRef], capacity: int) -> list[Unit]:
    """The units of up to `capacity` tokens: groups with a shared prompt, in parts if they exceed it; others one by one.

    Raises ConfigError if a sequence alone exceeds `capacity`.
    """
    if longest := max((s.tokens for s in sequences if s.tokens > capacity), default=0):
        raise ConfigError(
            f"a sequence of {longest} tokens does not fit learner.micro_batch_tokens={capacity}: "
            "raise it to model.max_length at least"
        )
    units: list[Unit] = []
    groups: dict[int, Unit] = {}
    for sequence in sequences:
        if sequence.shared:
            groups.setdefault(sequence.group, []).append(sequence)
        else:
            units.append([sequence])
    for group in groups.values():
        parts = _best_fit([s.tokens - s.shared for s in group], capacity - group[0].shared)
        units += [[group[i] for i in part] for part in parts]
    return units


def balance(units: Sequence[Unit], ranks: int, capacity: int) -> list[list[Unit]]:
    """Split so that the ranks' token counts are close: they differ by at most the longest sequence.

    Longest first, each to the rank with the fewest tokens so far; then single completions move from the rank with the
    most tokens to the one with the fewest, as long as that lowers the most. A completion that moves takes its prompt
    along.
    """
    shares: list[list[Unit]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for unit in sorted(units, key=lambda u: -packed_tokens(u)):
        rank = min(range(ranks), key=loads.__getitem__)
        shares[rank].append(list(unit))
        loads[rank] += packed_tokens(unit)
    while _move_one(shares, loads, capacity):
        pass
    return shares


def _move_one(shares: list[list[Unit]], loads: list[int], capacity: int) -> bool:
    """Move the completion that lowers the largest load most, if there is one.

    The largest load falls with every move.
    """
    most, fewest = (choose(range(len(loads)), key=loads.__getitem__) for choose in (max, min))
    hosts = {unit[0].group: unit for unit in shares[fewest] if unit[0].shared}  # which a completion could join
    best: tuple[int, tuple[int, int], Unit, SequenceRef, Unit] | None = None  # larger load, both, from, what, to
    for unit in shares[most]:
        for sequence in unit:
            own = sequence.tokens - sequence.shared
            host = hosts.get(sequence.group, [])
            target = host if host and packed_tokens(host) + own <= capacity else []
            after = (
                loads[most] - (own if len(unit) > 1 else sequence.tokens),
                loads[fewest] + (own if target else sequence.tokens),
            )
            if max(after) < (loads[most] if best is None else best[0]):
                best = (max(after), after, unit, sequence, target)
    if best is None:
        return False
    _, (loads[most], loads[fewest]), unit, sequence, target = best
    unit.remove(sequence)
    if not unit:
        shares[most] = [u for u in shares[most] if u is not unit]
    if not target:
        shares[fewest].append(target)
    target.append(sequence)
    return True


def best_fit(units: Sequence[Unit], capacity: int) -> list[list[Unit]]:
    """Pack into bins of `capacity` tokens: longest first, each into the fullest bin that still has room."""
    return [[units[i] for i in part] for part in _best_fit([packed_tokens(u) for u in units], capacity)]


def _best_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Bins of indices into `sizes`, none of which exceeds `capacity`."""
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, index of the bin), ascending
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        at = bisect.bisect_left(room, (sizes[i], -1))
        left, index = room.pop(at) if at < len(room) else (capacity, len(bins))
        if index == len(bins):
            bins.append([])
        bins[index].append(i)
        bisect.insort(room, (left - sizes[i], index))
    return bins


def _side_by_side(units: Sequence[Unit]) -> tuple[SequenceRef, ...]:
    """The sequences of a micro-batch, those of a shared prompt together although they may come from several units."""
    joined: dict[int, Unit] = {}
    for i, unit in enumerate(units):
        joined.setdefault(unit[0].group if unit[0].shared else -1 - i, []).extend(unit)
    return tuple(sequence for unit in joined.values() for sequence in unit)
