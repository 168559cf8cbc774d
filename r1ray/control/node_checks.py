"""Ask the probes on all nodes of a cluster, each wait with a deadline, and turn their answers into findings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from r1ray.control.calls import gather
from r1ray.control.handles import Handle
from r1ray.control.node_api import NodeApi
from r1ray.errors import DeadlineExceeded
from r1ray.preflight.findings import Finding, Verdict, error, warning
from r1ray.preflight.network import PairResult, rounds
from r1ray.preflight.node import NodeReport, NodeRequest
from r1ray.preflight.nodes import clock, compare

NODE_S = 90.0
"""Deadline of a node's first answer: Ray starts a process there, which imports r1ray."""
CLOCK_S = 10.0
PAIR_S = 20.0
"""Deadline of each operation of one transfer between two nodes."""
NETWORK_S = 300.0
"""After that no further round of transfers begins."""
PAIR_BYTES = 64 << 20

Probes = Mapping[str, Handle[NodeApi]]
"""Name of a node -> the probe on it."""


def nothing() -> None:
    """A tick of `gather` that does nothing."""


def inspect_nodes(
    probes: Probes,
    asked: Mapping[str, NodeRequest],
    here: NodeReport,
    *,
    alive: Callable[[], set[str]],
    silent: Verdict = "error",
    deadline_s: float = NODE_S,
) -> tuple[list[Finding], set[str]]:
    """Inspect every node and compare it with the driver's machine. Returns the findings and the nodes that answered.

    `silent`: the verdict for a node that does not answer although Ray still lists it (`alive`); nodes that have left
    are not reported. A failure on a node is a finding, never an exception.
    """
    calls = {node: probe.start(NodeApi.inspect, asked[node]) for node, probe in probes.items()}
    done = gather(calls, deadline_s=deadline_s, what="the checks of a node", tick=nothing)
    findings = list(compare(here, done.results))
    left = alive() if done.failures else set()
    for node, problem in done.failures.items():
        if node in left:
            findings.append(_unanswered(problem, silent, deadline_s).on(node))
    return findings, set(done.results)


def _unanswered(problem: BaseException, silent: Verdict, deadline_s: float) -> Finding:
    if isinstance(problem, DeadlineExceeded):
        meaning = "actors that Ray places there may never start"
        fix = "look at the node's load and memory, at `ray status` and at its raylet.log; or take it out of the cluster"
        make = error if silent == "error" else warning
        return make("node", f"does not answer within {deadline_s:g} s", meaning=meaning, fix=fix)
    text = f"{type(problem).__name__}: {problem}".strip().splitlines()
    detail = text[0] if len(text) == 1 else f"{text[0]} ... {text[-1]}"
    meaning = "no process of r1ray can start there"
    return error("node", detail, meaning=meaning, fix="install the same version of r1ray on every node (make install)")


def check_clocks(probes: Probes) -> list[Finding]:
    """Compare the clock of every node with the driver's.

    The probes have answered before, so a call takes milliseconds.
    """
    findings = []
    for node, probe in probes.items():
        sent = time.time()
        done = gather({node: probe.start(NodeApi.clock)}, deadline_s=CLOCK_S, what="a node's clock", tick=nothing)
        if node in done.results:
            findings.append(clock(sent, done.results[node], time.time()).on(node))
        else:
            problem = done.failures[node]
            meaning, fix = "it was reached before, and is not now", "look at the node, then repeat"
            findings.append(error("clock", str(problem), meaning=meaning, fix=fix).on(node))
    return findings


def measure_pairs(
    probes: Probes, transport: str, *, interface: str | None, nbytes: int = PAIR_BYTES, total_s: float = NETWORK_S
) -> tuple[list[PairResult], int]:
    """Send `nbytes` from every node to every other. Returns the results and the number of pairs that were not tried.

    A node that is still in a call after its deadline is left out of the rounds that follow.
    """
    until = time.monotonic() + total_s
    results: list[PairResult] = []
    untried, stuck = 0, set[str]()
    for pairs in rounds(list(probes)):
        free = [] if time.monotonic() >= until else [pair for pair in pairs if not stuck & set(pair)]
        untried += len(pairs) - len(free)
        for result, hung in _round(probes, free, transport, interface, nbytes):
            results.append(result)
            stuck |= hung
    return results, untried


def _round(
    probes: Probes, pairs: Sequence[tuple[str, str]], transport: str, interface: str | None, nbytes: int
) -> list[tuple[PairResult, set[str]]]:
    """Transfers at the same time between disjoint pairs: each result with the nodes whose calls have not ended."""
    what = f"a transfer over {transport}"
    listening = {pair: probes[pair[0]].start(NodeApi.listen, transport, PAIR_S) for pair in pairs}
    opened = gather(listening, deadline_s=2 * PAIR_S, what=what, tick=nothing)
    sending = {pair: probes[pair[0]].start(NodeApi.send, nbytes, interface) for pair in opened.results}
    receiving = {
        pair: probes[pair[1]].start(NodeApi.receive, rendezvous, nbytes, interface)
        for pair, rendezvous in opened.results.items()
    }
    # Rendezvous, warm-up and the transfer itself may each take PAIR_S.
    received = gather(receiving, deadline_s=4 * PAIR_S, what=what, tick=nothing)
    sent = gather(sending, deadline_s=PAIR_S, what=what, tick=nothing)
    made = []
    for pair in pairs:
        problem = opened.failures.get(pair) or received.failures.get(pair) or sent.failures.get(pair)
        hung = {
            node
            for node, outcome in ((pair[0], opened), (pair[1], received), (pair[0], sent))
            if isinstance(outcome.failures.get(pair), DeadlineExceeded)
        }
        seconds = received.results.get(pair, 0.0)
        gb_s = nbytes / 1e9 / max(seconds, 1e-9) if problem is None else 0.0
        failure = "" if problem is None else " ".join(str(problem).split())
        result = PairResult(transport=transport, sender=pair[0], receiver=pair[1], gb_s=gb_s, failure=failure)
        made.append((result, hung))
    return made
