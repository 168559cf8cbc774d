"""Advantages: by hand, against the loop-written reference, and their invariants."""

import numpy as np
import pytest

from learner.advantages import ADVANTAGES, soft_overlong_penalty
from tests.unit import reference_losses

GROUPS = [np.array([1.0, 0.0, 0.0, 1.0]), np.array([2.0, 2.0]), np.array([3.0, 0.0, 0.0])]

BY_HAND = {
    "group_norm": [[1, -1, -1, 1], [0, 0], [2**0.5, -(0.5**0.5), -(0.5**0.5)]],
    "mean_only": [[0.5, -0.5, -0.5, 0.5], [0, 0], [2, -1, -1]],
    "leave_one_out": [[2 / 3, -2 / 3, -2 / 3, 2 / 3], [0, 0], [3, -1.5, -1.5]],
    # nine rewards, mean 1, squared deviations 0 1 1 0 1 1 4 1 1 -> std (10 / 9) ** 0.5
    "reinforce_pp": [[x / (10 / 9) ** 0.5 for x in row] for row in [[0, -1, -1, 0], [1, 1], [2, -1, -1]]],
}


@pytest.mark.parametrize("name", ADVANTAGES)
def test_by_hand(name):
    for found, expected in zip(ADVANTAGES[name](GROUPS), BY_HAND[name], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ADVANTAGES)
@pytest.mark.parametrize("seed", range(5))
def test_against_the_slow_reference(name, seed):
    rng = np.random.default_rng(seed)
    groups = [rng.normal(size=rng.integers(2, 9)) for _ in range(6)]
    expected = getattr(reference_losses, name)([g.tolist() for g in groups])
    for found, row in zip(ADVANTAGES[name](groups), expected, strict=True):
        np.testing.assert_allclose(found, row, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ADVANTAGES)
def test_equal_rewards_teach_nothing_and_are_never_nan(name):
    """0.1 is no binary fraction: its mean differs from it in the last bit,
    and dividing by that would give any number.
    """
    for row in ADVANTAGES[name]([np.full(7, 0.1), np.full(3, 0.1)]):
        np.testing.assert_array_equal(row, 0.0)


@pytest.mark.parametrize("name", ["group_norm", "mean_only", "leave_one_out"])
def test_advantages_of_a_group_sum_to_zero_and_ignore_other_groups(name):
    rng = np.random.default_rng(1)
    groups = [rng.normal(size=5) for _ in range(3)]
    found = ADVANTAGES[name](groups)
    for row in found:
        assert row.sum() == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_array_equal(found[1], ADVANTAGES[name]([groups[1]])[0])


@pytest.mark.parametrize(
    ("tokens", "expected"), [(1, 0.0), (80, 0.0), (85, -0.5), (90, -1.0), (100, -2.0), (130, -2.0)]
)
def test_overlong_penalty_by_hand(tokens, expected):
    """The last 20 of 100 tokens cost up to 2."""
    found = soft_overlong_penalty(np.array([tokens]), max_new_tokens=100, buffer_tokens=20, penalty=2.0)
    assert found == pytest.approx([expected])
    assert found == pytest.approx([reference_losses.overlong(tokens, 100, 20, 2.0)])
