"""Reachability and bandwidth between all nodes: which pairs are measured when, and what the results mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from r1ray.preflight.findings import Finding, error, ok, warning

SLOW_GB_S = 0.1
"""Below a network of 1 Gbit/s."""
LISTED = 10
"""Pairs that are listed one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairResult:
    """One transfer from one node to another. Producer: `r1ray.launch.node_checks`."""

    transport: str  # gloo | nccl
    sender: str  # name of a node
    receiver: str
    gb_s: float = 0.0  # GB/s; 0 if it failed
    failure: str = ""  # why it failed; empty if it did not


def rounds(nodes: Sequence[str]) -> list[list[tuple[str, str]]]:
    """All ordered pairs (sender, receiver) in rounds in which every node occurs at most once (circle method).

    n nodes take 2(n - 1) rounds, or 2n if n is odd; nothing for one node.
    """
    ring: list[str | None] = [*nodes, *([None] if len(nodes) % 2 else [])]
    half = len(ring) // 2
    made: list[list[tuple[str, str]]] = []
    for _ in range(len(ring) - 1):
        pairs = [
            (a, b) for a, b in zip(ring[:half], reversed(ring[half:]), strict=True) if a is not None and b is not None
        ]
        made += [pairs, [(b, a) for a, b in pairs]]
        ring = [ring[0], ring[-1], *ring[1:-1]]
    return [pairs for pairs in made if pairs]


def network(
    transport: str,
    results: Sequence[PairResult],
    *,
    untried: int = 0,
    model_bytes: float = 0.0,
    deadline_s: float = 0.0,
) -> Iterator[Finding]:
    """What the results of one transport mean.

    `untried`: pairs for which no time was left. `model_bytes`, `deadline_s`: of a weight sync of the run, if known.
    """
    what = f"network ({transport})"
    good = sorted((r for r in results if not r.failure), key=lambda r: r.gb_s)
    bad = [r for r in results if r.failure]
    for r in bad[:LISTED]:
        meaning = f"weights cannot travel from {r.sender} to {r.receiver}"
        fix = (
            f"open all TCP ports between the nodes (security group, firewall); check that {r.receiver} reaches the "
            f"address {r.sender}, and sync.interface"
        )
        yield error(what, f"{r.sender} -> {r.receiver}: {r.failure}", meaning=meaning, fix=fix)
    if len(bad) > LISTED:
        meaning, fix = "as above", "as above; --json lists every pair"
        yield error(what, f"{len(bad) - LISTED} more pairs fail", meaning=meaning, fix=fix)
    if untried:
        meaning = "they may fail; the others took too long"
        yield warning(what, f"{untried} pairs were not tried", meaning=meaning, fix="fix the others, then repeat")
    if not good:
        return
    slowest = good[0]
    detail = (
        f"{len(good)} of {len(results) + untried} directed pairs work; {slowest.gb_s:.2f} GB/s at the slowest "
        f"({slowest.sender} -> {slowest.receiver}), {median(r.gb_s for r in good):.2f} at the median"
    )
    seconds = model_bytes / 1e9 / slowest.gb_s
    if deadline_s and seconds > deadline_s:
        meaning = (
            f"one sync of {model_bytes / 1e9:.1f} GB takes about {seconds:.0f} s there, "
            f"sync.deadline_s is {deadline_s:g}"
        )
        yield warning(
            what, detail, meaning=meaning, fix="a faster network, sync.interface, or a longer sync.deadline_s"
        )
    elif slowest.gb_s < SLOW_GB_S:
        meaning = "weight syncs and, with several learner nodes, every step are slow"
        yield warning(what, detail, meaning=meaning, fix="a faster network, or sync.interface of the fast one")
    else:
        yield ok(what, detail)
