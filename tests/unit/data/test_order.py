"""Shuffled epochs and mixtures."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ray.data.order import Interleave, Mixture, permute


@given(length=st.integers(1, 300), key=st.text(max_size=8))
@settings(max_examples=60, deadline=None)
def test_a_permutation_reaches_every_row_once(length: int, key: str) -> None:
    assert sorted(permute(i, length, key) for i in range(length)) == list(range(length))


def test_the_order_is_the_same_for_ever() -> None:
    """Resuming an old run relies on these very numbers: a change of them is a change of every run's data."""
    assert [permute(i, 10, "0/gsm8k/0") for i in range(10)] == [2, 6, 9, 1, 4, 3, 5, 8, 7, 0]


def test_epochs_and_seeds_differ_and_rows_are_spread_evenly() -> None:
    orders = {tuple(permute(i, 50, f"0/a/{epoch}") for i in range(50)) for epoch in range(200)}
    assert len(orders) == 200
    first = Counter(permute(0, 5, f"seed {i}") for i in range(5000))
    assert sorted(first) == list(range(5))
    assert all(abs(n - 1000) < 130 for n in first.values()), first  # four standard deviations


def test_neighbours_do_not_stay_together() -> None:
    n = 4096
    order = [permute(i, n, "k") for i in range(n)]
    adjacent = sum(abs(a - b) == 1 for a, b in pairwise(order))
    assert adjacent < 12  # 2 are expected of a uniform permutation


@pytest.mark.parametrize("weights", [[1], [2, 1], [0.5, 0.25, 0.25], [1, 1, 1], [0.9, 0.0999, 0.0001], [7, 11, 13]])
def test_a_mixture_keeps_its_shares_and_skips_no_position(weights: list[float]) -> None:
    interleave = Interleave(weights)
    seen: list[list[int]] = [[] for _ in weights]
    n = 20_000
    for index in range(n):
        source, position = interleave.locate(index)
        seen[source].append(position)
    for weight, positions in zip(weights, seen, strict=True):
        assert positions == list(range(len(positions)))
        assert len(positions) == pytest.approx(n * weight / sum(weights), abs=3)


def test_a_mixture_is_even_all_along() -> None:
    interleave = Interleave([2, 1])
    assert [interleave.locate(i) for i in range(6)] == [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (0, 3)]


def test_a_tiny_share_is_never_nothing() -> None:
    interleave = Interleave([1, 1e-9])
    assert {interleave.locate(i)[0] for i in range(10_001)} == {0, 1}


def test_a_source_that_joins_later_changes_nothing_before_it_and_starts_at_its_beginning() -> None:
    mixture, before = Mixture([2.0, 1.0, 3.0], [0, 0, 30]), Mixture([2.0, 1.0], [0, 0])
    assert [mixture.locate(i) for i in range(30)] == [before.locate(i) for i in range(30)]
    found = [mixture.locate(i) for i in range(6000)]
    for source in range(3):  # each goes through its own order without a gap or a repetition
        positions = [position for s, position in found if s == source]
        assert positions == list(range(len(positions)))
    later = [source for source, _ in found[30:]]
    shares = [later.count(source) / len(later) for source in range(3)]
    assert shares == pytest.approx([2 / 6, 1 / 6, 3 / 6], abs=0.01)


def test_a_mixture_of_sources_that_are_there_from_the_start_is_their_interleave() -> None:
    mixture, order = Mixture([1.0, 4.0], [0, 0]), Interleave([1.0, 4.0])
    assert [mixture.locate(i) for i in range(500)] == [order.locate(i) for i in range(500)]
