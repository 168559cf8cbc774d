"""Probes that answer, fail, hang or have left, as findings; transfers between pairs of nodes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from r1ray.control import node_checks
from r1ray.control.node_checks import check_clocks, inspect_nodes, measure_pairs
from r1ray.errors import WeightSyncError
from r1ray.preflight.findings import ok
from r1ray.preflight.node import NodeReport, NodeRequest
from tests.unit.scripted import FakeHandle

HERE = NodeReport(host="h", versions={"python": "3.11.9", "ray": "2.60.0"}, findings=())
THERE = NodeReport(host="n", versions={"python": "3.11.9", "ray": "2.60.0"}, findings=(ok("memory", "9 GiB"),))
REQUEST = NodeRequest(thorough=False)


def probe(name: str, **methods: Any) -> FakeHandle:
    defaults = {
        "inspect": lambda request: THERE,
        "clock": time.time,
        "listen": lambda transport, timeout_s: (transport, name),
        "send": lambda nbytes, interface: None,
        "receive": lambda rendezvous, nbytes, interface: 0.5,
    }
    return FakeHandle(name, **{**defaults, **methods})


def raising(error: Exception) -> Any:
    def method(*args: Any) -> Any:
        raise error

    return method


def inspected(
    probes: dict[str, FakeHandle], alive: set[str], **options: Any
) -> tuple[list[tuple[str, str, str]], set[str]]:
    asked = dict.fromkeys(probes, REQUEST)
    found, answered = inspect_nodes(probes, asked, HERE, alive=lambda: alive, deadline_s=0.05, **options)
    return [(f.node, f.verdict, f.what) for f in found], answered


def test_every_node_that_answers_is_compared_with_the_driver() -> None:
    found, answered = inspected({"a": probe("a"), "b": probe("b")}, {"a", "b"})
    assert found == [(node, "ok", what) for node in ("a", "b") for what in ("memory", "versions")]
    assert answered == {"a", "b"}


def test_a_node_that_does_not_answer_is_a_finding() -> None:
    hung = probe("b")
    hung.hold = {"inspect"}
    found, answered = inspected({"a": probe("a"), "b": hung}, {"a", "b"})
    assert (found[-1], answered) == (("b", "error", "node"), {"a"})
    found, _ = inspected({"b": hung}, {"b"}, silent="warning")
    assert found == [("b", "warning", "node")]


def test_a_node_that_has_left_the_cluster_is_none_of_it() -> None:
    gone = probe("b")
    gone.dead = True
    assert inspected({"a": probe("a"), "b": gone}, {"a"})[1] == {"a"}
    assert ("b", "error", "node") not in inspected({"a": probe("a"), "b": gone}, {"a"})[0]


def test_a_node_without_r1ray_is_an_error_with_ray_s_reason() -> None:
    missing = probe("b", inspect=raising(ModuleNotFoundError("No module named 'r1ray'")))
    found, _ = inspect_nodes({"b": missing}, {"b": REQUEST}, HERE, alive=lambda: {"b"}, deadline_s=1.0)
    assert [(f.verdict, f.detail) for f in found] == [("error", "ModuleNotFoundError: No module named 'r1ray'")]
    assert "same version of r1ray" in found[0].fix


def test_clocks_are_compared_node_by_node() -> None:
    late = probe("late", clock=lambda: time.time() - 1000.0)
    dead = probe("dead")
    dead.dead = True
    found = check_clocks({"a": probe("a"), "late": late, "dead": dead})
    assert [(f.node, f.verdict) for f in found] == [("a", "ok"), ("late", "error"), ("dead", "error")]


def test_every_directed_pair_is_measured() -> None:
    probes = {name: probe(name) for name in "abc"}
    results, untried = measure_pairs(probes, "gloo", interface="eth0", nbytes=10**9)
    assert sorted((r.sender, r.receiver, r.gb_s) for r in results) == [
        (s, r, 2.0) for s in "abc" for r in "abc" if s != r
    ]
    assert untried == 0
    method, args, _ = probes["a"].calls[-1]
    assert method in ("send", "receive")
    assert args[-1] == "eth0"


def test_a_pair_that_fails_costs_the_others_nothing() -> None:
    deaf = probe("b", receive=raising(WeightSyncError("cannot reach the learner's store\nat a:1")))
    results, untried = measure_pairs({"a": probe("a"), "b": deaf, "c": probe("c")}, "gloo", interface=None)
    failed = {(r.sender, r.receiver): r.failure for r in results if r.failure}
    assert failed == dict.fromkeys([("a", "b"), ("c", "b")], "cannot reach the learner's store at a:1")
    assert (len(results), untried) == (6, 0)


def test_a_node_that_hangs_is_left_out_of_later_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_checks, "PAIR_S", 0.01)
    hung = probe("b")
    hung.hold = {"receive", "listen"}
    results, untried = measure_pairs(
        {name: hung if name == "b" else probe(name) for name in "abcd"}, "gloo", interface=None
    )
    assert [bool(r.failure) for r in results].count(True) == 1
    assert len(results) + untried == 12
    assert {frozenset((r.sender, r.receiver)) for r in results if not r.failure} == {
        frozenset(pair) for pair in ("ac", "ad", "cd")
    }


def test_no_round_begins_when_the_time_is_over() -> None:
    assert measure_pairs({name: probe(name) for name in "abc"}, "gloo", interface=None, total_s=0.0) == ([], 6)
