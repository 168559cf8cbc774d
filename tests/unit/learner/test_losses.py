"""Policy losses, corrections, KL and aggregation: by hand and against the loop-written reference in float64."""

import math

import numpy as np
import pytest
import torch

from learner.importance import CORRECTIONS
from learner.losses import LOSSES, LossInput, kl_k3, token_weights
from tests.unit import reference_losses

LOG = math.log


def loss_input(new, old, advantages, low=0.2, high=0.2):
    """Rows (a list per sequence) as the packed tensors of a micro-batch."""
    lengths = torch.tensor([len(row) for row in new])
    segment = torch.repeat_interleave(torch.arange(len(new)), lengths)
    flat = lambda rows: torch.tensor([x for row in rows for x in row], dtype=torch.float64)  # noqa: E731
    return LossInput(
        logprobs_T=flat(new).requires_grad_(),
        old_logprobs_T=flat(old),
        advantages_T=torch.tensor(advantages, dtype=torch.float64)[segment],
        segment_T=segment,
        lengths_S=lengths.double(),
        clip_low=low,
        clip_high=high,
    )


# Ratios 0.5, 1 and 2 with clips 0.2 below and 0.3 above; the first sequence is good (A = 1), the second bad (A = -2).
NEW = [[LOG(0.1), LOG(0.2), LOG(0.4)], [LOG(0.1), LOG(0.4)]]
OLD = [[LOG(0.2), LOG(0.2), LOG(0.2)], [LOG(0.2), LOG(0.2)]]
ADVANTAGES = [1.0, -2.0]
BY_HAND = {  # values, clipped
    "grpo": ([-0.5, -1.0, -1.3, 1.6, 4.0], [False, False, True, True, False]),
    # Sequence ratios: (0.5 * 1 * 2) ** (1/3) = 1 and (0.5 * 2) ** (1/2) = 1.
    "gspo": ([-1.0, -1.0, -1.0, 2.0, 2.0], [False] * 5),
    # Weights 0.8, 1, 1.3 and 0.8, 1.3.
    "cispo": (
        [-0.8 * LOG(0.1), -LOG(0.2), -1.3 * LOG(0.4), 1.6 * LOG(0.1), 2.6 * LOG(0.4)],
        [True, False, True, True, True],
    ),
}
BY_HAND |= {"dr_grpo": BY_HAND["grpo"], "dapo": BY_HAND["grpo"]}


@pytest.mark.parametrize("name", LOSSES)
def test_by_hand(name):
    values, clipped = BY_HAND[name]
    found = LOSSES[name](loss_input(NEW, OLD, ADVANTAGES, low=0.2, high=0.3))
    assert found.loss_T.tolist() == pytest.approx(values)
    assert found.clipped_T.tolist() == clipped


def test_gspo_clips_whole_sequences():
    """Ratios 2 and 8 give a sequence ratio of 4, clipped to 1.3: both tokens lose their gradient."""
    x = loss_input([[LOG(0.2), LOG(0.8)]], [[LOG(0.1), LOG(0.1)]], [1.0], high=0.3)
    found = LOSSES["gspo"](x)
    assert found.loss_T.tolist() == pytest.approx([-1.3, -1.3])
    assert found.clipped_T.tolist() == [True, True]
    assert found.ratio_T.tolist() == pytest.approx([4.0, 4.0])


@pytest.mark.parametrize("low", [1.0, 10.0])
@pytest.mark.parametrize("name", ["grpo", "cispo"])
def test_a_clip_of_one_or_more_below_bounds_nothing(name, low):
    """R1's epsilon of 10: ratios 0.001 and 8 of a bad and a good token stay; 20 becomes 11 where that is worse."""
    new, old = [[LOG(0.001), LOG(0.8), LOG(1.0)]], [[LOG(1.0), LOG(0.1), LOG(0.05)]]
    for sign in (-1.0, 1.0):
        found = LOSSES[name](loss_input(new, old, [sign], low=low, high=10.0))
        assert found.clipped_T.tolist() == [False, False, name == "cispo" or sign > 0]
        values = [0.001, 8.0, 11.0 if name == "cispo" or sign > 0 else 20.0]
        factor = [-sign * x for x in (new[0] if name == "cispo" else [1.0] * 3)]
        assert found.loss_T.tolist() == pytest.approx([v * f for v, f in zip(values, factor, strict=True)])


@pytest.mark.parametrize("name", LOSSES)
def test_on_policy_gradient_is_that_of_the_policy_gradient_theorem(name):
    """Where new = old, d loss / d logprob = -A for every token (gspo: -A / length,
    from each of its `length` equal values).
    """
    x = loss_input(OLD, OLD, ADVANTAGES)
    LOSSES[name](x).loss_T.sum().backward()
    assert x.logprobs_T.grad.tolist() == pytest.approx([-1.0, -1.0, -1.0, 2.0, 2.0])


@pytest.mark.parametrize(("name", "lost"), [("grpo", True), ("gspo", True), ("cispo", False)])
def test_only_cispo_keeps_the_gradient_of_clipped_tokens(name, lost):
    x = loss_input([[LOG(0.8)]], [[LOG(0.2)]], [1.0])
    LOSSES[name](x).loss_T.sum().backward()
    assert x.logprobs_T.grad.tolist() == pytest.approx([0.0 if lost else -1.2])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", range(6))
def test_against_the_slow_reference(name, seed):
    """Random sequences; the gradient is compared with finite differences of the reference."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 7, 5)
    new = [rng.normal(-1.5, 0.5, n).tolist() for n in lengths]
    old = [(np.array(row) + rng.normal(0, 0.4, len(row))).tolist() for row in new]
    advantages = rng.normal(size=5).tolist()
    x = loss_input(new, old, advantages, low=0.15, high=0.35)
    found = LOSSES[name](x)
    expected = reference_losses.LOSSES[name](new, old, advantages, 0.15, 0.35)
    assert found.loss_T.tolist() == pytest.approx([v for row in expected for v in row], rel=1e-9)

    if name == "cispo":
        return  # its weight is a constant to the gradient but not to a finite difference
    found.loss_T.sum().backward()
    gradient = iter(x.logprobs_T.grad.tolist())
    for s, row in enumerate(new):
        for t in range(len(row)):
            totals = []
            for nudge in (1e-6, -1e-6):
                moved = [list(r) for r in new]
                moved[s][t] += nudge
                values = reference_losses.LOSSES[name](moved, old, advantages, 0.15, 0.35)
                totals.append(sum(v for r in values for v in r))
            assert next(gradient) == pytest.approx((totals[0] - totals[1]) / 2e-6, abs=1e-5)


# -- KL and corrections ---------------------------------------------------------------------------------------------


def test_k3_by_hand_and_against_the_reference():
    new = torch.tensor([LOG(0.5), LOG(0.2), LOG(0.4)], dtype=torch.float64)
    reference = torch.tensor([LOG(0.5), LOG(0.4), LOG(0.1)], dtype=torch.float64)
    found = kl_k3(new, reference).tolist()
    assert found == pytest.approx([0.0, 2 - LOG(2) - 1, 0.25 - LOG(0.25) - 1])
    assert found == pytest.approx(
        [reference_losses.k3(n, r) for n, r in zip(new.tolist(), reference.tolist(), strict=True)]
    )


def test_k3_is_unbiased_for_the_kl_divergence():
    """Its expectation under the policy is sum p log(p / q), exactly, over a whole vocabulary."""
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randn(11, dtype=torch.float64, generator=generator).softmax(0) for _ in range(2))
    expected = (p * (p / q).log()).sum()
    assert float((p * kl_k3(p.log(), q.log())).sum()) == pytest.approx(float(expected))


PROXIMAL = [LOG(0.1), LOG(0.2), LOG(0.3), LOG(0.9)]
BEHAVIOR = [LOG(0.3), LOG(0.2), LOG(0.2), LOG(0.1)]  # weights 1/3, 1, 1.5, 9


@pytest.mark.parametrize(
    ("name", "expected"),
    [("none", [1, 1, 1, 1]), ("truncated", [1 / 3, 1, 1.5, 2]), ("masked", [0, 1, 1.5, 0])],
)
def test_corrections_by_hand(name, expected):
    proximal = torch.tensor(PROXIMAL, dtype=torch.float64, requires_grad=True)
    found = CORRECTIONS[name](proximal, torch.tensor(BEHAVIOR, dtype=torch.float64), 2.0)
    assert found.tolist() == pytest.approx(expected)
    assert not found.requires_grad


@pytest.mark.parametrize("name", ["truncated", "masked"])
def test_corrections_against_the_slow_reference(name):
    rng = np.random.default_rng(4)
    proximal, behavior = rng.normal(-2, 1, 200), rng.normal(-2, 1, 200)
    found = CORRECTIONS[name](torch.tensor(proximal), torch.tensor(behavior), 3.0)
    slow = getattr(reference_losses, name)
    expected = [slow(p, b, 3.0) for p, b in zip(proximal, behavior, strict=True)]
    assert found.tolist() == pytest.approx(expected)
    assert len(set(expected)) < 200  # the cap was met


# -- aggregation ----------------------------------------------------------------------------------------------------

VALUES = [[1.0, 2.0, 3.0], [10.0]]


@pytest.mark.parametrize(
    ("how", "expected"),
    [("token", 16 / 4), ("sequence", (2 + 10) / 2), ("constant", 16 / (2 * 5))],
)
def test_aggregation_by_hand(how, expected):
    weights = token_weights(how, torch.tensor([3.0, 1.0]), tokens=4, sequences=2, max_new_tokens=5).tolist()
    total = sum(weight * sum(row) for weight, row in zip(weights, VALUES, strict=True))
    assert total == pytest.approx(expected)
    assert total == pytest.approx(reference_losses.aggregate(VALUES, how, [True, True], 5))


@pytest.mark.parametrize("how", ["token", "sequence", "constant"])
def test_parts_of_a_minibatch_add_up_to_the_whole(how):
    """Denominators are global: two micro-batches weighted alone sum to what both weighted together give."""
    counts = {"tokens": 9, "sequences": 3, "max_new_tokens": 7}
    whole = token_weights(how, torch.tensor([3.0, 1.0, 5.0]), **counts).tolist()
    parts = [token_weights(how, torch.tensor(lengths), **counts).tolist() for lengths in ([3.0], [1.0, 5.0])]
    assert whole == pytest.approx(parts[0] + parts[1])
