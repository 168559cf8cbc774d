"""Which pairs of nodes are measured when, and what the results mean."""

from __future__ import annotations

from itertools import permutations

import pytest

from r1ray.preflight.network import LISTED, PairResult, network, rounds


@pytest.mark.parametrize("count", range(1, 10))
def test_every_ordered_pair_is_measured_once_and_no_node_twice_in_a_round(count: int) -> None:
    nodes = [f"n{i}" for i in range(count)]
    made = rounds(nodes)
    assert sorted(pair for pairs in made for pair in pairs) == sorted(permutations(nodes, 2))
    assert all(len({node for pair in pairs for node in pair}) == 2 * len(pairs) for pairs in made)
    assert len(made) <= 2 * count


def result(sender: str, receiver: str, gb_s: float = 1.0, failure: str = "") -> PairResult:
    return PairResult(transport="gloo", sender=sender, receiver=receiver, gb_s=gb_s, failure=failure)


def test_the_slowest_pair_and_the_median_are_told() -> None:
    (found,) = network("gloo", [result("a", "b", 0.5), result("b", "a", 2.0), result("a", "c", 1.0)])
    assert found.verdict == "ok"
    assert found.detail == "3 of 3 directed pairs work; 0.50 GB/s at the slowest (a -> b), 1.00 at the median"


def test_a_pair_that_fails_is_an_error_and_a_long_list_is_cut() -> None:
    bad = [result("a", f"n{i}", 0.0, "no route") for i in range(LISTED + 3)]
    found = list(network("gloo", [*bad, result("a", "z")]))
    assert [f.verdict for f in found] == ["error"] * (LISTED + 1) + ["ok"]
    assert found[0].detail == "a -> n0: no route"
    assert found[LISTED].detail == "3 more pairs fail"


def test_a_network_on_which_a_sync_misses_its_deadline_is_a_warning() -> None:
    (found,) = network("gloo", [result("a", "b", 0.2)], model_bytes=28e9, deadline_s=60.0)
    assert (found.verdict, "takes about 140 s" in found.meaning) == ("warning", True)
    assert [f.verdict for f in network("gloo", [result("a", "b", 0.2)], model_bytes=2e9, deadline_s=60.0)] == ["ok"]
    assert [f.verdict for f in network("gloo", [result("a", "b", 0.05)])] == ["warning"]


def test_pairs_without_time_left_are_told() -> None:
    assert [f.detail for f in network("nccl", [], untried=4)] == ["4 pairs were not tried"]
