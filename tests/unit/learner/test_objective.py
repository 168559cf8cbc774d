"""The whole objective on one packed micro-batch against the slow reference,
for every algorithm that may be configured.
"""

import dataclasses

import numpy as np
import pytest
import torch

from learner.batch import Sequence, make_micro_batch
from learner.metrics import MetricSums
from learner.objective import MAXIMA, MEANS, Denominators, PolicyObjective
from r1ray.config.schema import Config
from tests.unit import reference_losses

CPU = torch.device("cpu")
VERSION = 7

VARIANTS = [
    {"loss": "grpo"},
    {"loss": "grpo", "loss_aggregation": "sequence", "kl_coefficient": 0.04},
    {"loss": "dr_grpo", "advantage": "mean_only", "loss_aggregation": "constant"},
    {"loss": "dapo", "clip_high": 0.28, "mask_truncated": True},
    {"loss": "gspo", "loss_aggregation": "sequence", "clip_low": 0.05, "clip_high": 0.05},
    {"loss": "cispo", "clip_low": 1.0, "entropy_coefficient": 0.01},
    {"loss": "grpo", "importance": "decoupled"},
    {
        "loss": "grpo",
        "importance": "decoupled",
        "importance_correction": "truncated",
        "importance_cap": 1.5,
        "kl_coefficient": 0.1,
    },
    {
        "loss": "cispo",
        "importance": "decoupled",
        "importance_correction": "masked",
        "importance_cap": 1.5,
        "mask_truncated": True,
    },
]


def make_case(seed, variant):
    rng = np.random.default_rng(seed)
    rows = [rng.normal(-2.0, 0.5, n).astype(np.float32) for n in (4, 1, 6, 3)]
    shifted = lambda spread: [(r + rng.normal(0, spread, len(r))).astype(np.float32) for r in rows]  # noqa: E731
    trained = [True, True, not variant.get("mask_truncated", False), True]
    case = {
        "new": rows,
        "behavior": shifted(0.4),
        "proximal": shifted(0.2),
        "reference": shifted(0.3),
        "trained": trained,
    }
    case["advantages"] = rng.normal(size=4).tolist()
    case["entropy"] = [rng.uniform(0.5, 2.0, len(r)).astype(np.float32) for r in rows]
    return case


def expected_loss(case, a):
    """The loss once more, from the loops of reference_losses."""
    rows = {k: [r.tolist() for r in case[k]] for k in ("new", "behavior", "proximal", "reference", "entropy")}
    old = rows["proximal"] if a.importance == "decoupled" else rows["behavior"]
    values = reference_losses.LOSSES[a.loss](rows["new"], old, case["advantages"], a.clip_low, a.clip_high)
    for s, row in enumerate(values):
        for t in range(len(row)):
            if a.importance_correction != "none":
                weight = getattr(reference_losses, a.importance_correction)
                row[t] *= weight(rows["proximal"][s][t], rows["behavior"][s][t], a.importance_cap)
            row[t] += a.kl_coefficient * reference_losses.k3(rows["new"][s][t], rows["reference"][s][t])
            row[t] -= a.entropy_coefficient * rows["entropy"][s][t]
    return reference_losses.aggregate(values, a.loss_aggregation, case["trained"], 10)


def run_objective(case, config, order=(0, 1, 2, 3)):
    sequences = [
        Sequence(
            prompt=np.zeros(2, dtype=np.int32),
            completion=np.zeros(len(case["new"][s]), dtype=np.int32),
            temperature=1.0,
            behavior_logprobs=case["behavior"][s],
            versions=np.full(len(case["new"][s]), VERSION - s % 2, dtype=np.int64),
            advantage=case["advantages"][s],
            trained=case["trained"][s],
        )
        for s in order
    ]
    flat = lambda key: torch.tensor(np.concatenate([case[key][s] for s in order]))  # noqa: E731
    batch = make_micro_batch(sequences, CPU)
    if config.algorithm.importance == "decoupled":
        batch.proximal_logprobs_T = flat("proximal")
    if config.algorithm.kl_coefficient:
        batch.reference_logprobs_T = flat("reference")
    kept = [len(row) for row, keep in zip(case["new"], case["trained"], strict=True) if keep]
    sums = MetricSums(means=MEANS, maxima=MAXIMA, device=CPU)
    loss = PolicyObjective(config).loss(
        lambda tokens: (flat("new"), flat("entropy")),
        batch,
        Denominators(tokens=sum(kept), sequences=len(kept)),
        sums,
        unchanged_version=VERSION,
    )
    return float(loss), sums.reduce(lambda values, op: values)[0]


def make_config(variant):
    config = Config()
    config.rollout.max_new_tokens = 10
    config.algorithm = dataclasses.replace(config.algorithm, **variant)
    return config


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(str(x) for x in v.values()))
@pytest.mark.parametrize("seed", range(3))
def test_objective_against_the_slow_reference(variant, seed):
    config, case = make_config(variant), make_case(seed, variant)
    found, _ = run_objective(case, config)
    assert found == pytest.approx(expected_loss(case, config.algorithm), rel=1e-5)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(str(x) for x in v.values()))
def test_micro_batches_add_up(variant):
    config, case = make_config(variant), make_case(9, variant)
    whole, _ = run_objective(case, config)
    parts = [run_objective(case, config, order)[0] for order in ((2, 0), (3, 1))]
    assert sum(parts) == pytest.approx(whole, rel=1e-5)


def test_without_recomputed_proximal_the_ratio_is_one():
    """The first minibatch of a decoupled step: proximal is the policy itself, so the loss is -mean A,
    whatever vLLM said.
    """
    config, case = make_config({"importance": "decoupled"}), make_case(2, {})
    case["proximal"] = case["new"]
    assert run_objective(case, config)[1]["train/ratio_mean"] == pytest.approx(1.0)


def test_masked_sequences_are_out_of_metrics_too():
    variant = {"mask_truncated": True}
    config, case = make_config(variant), make_case(3, variant)
    metrics = run_objective(case, config)[1]
    kept = np.concatenate([e for e, keep in zip(case["entropy"], case["trained"], strict=True) if keep])
    assert metrics["train/entropy"] == pytest.approx(kept.mean(), rel=1e-6)


def test_mismatch_and_staleness_are_told_apart_by_version():
    """Sequences 0 and 2 were sampled by the very policy in the learner, 1 and 3 by the one before."""
    config, case = make_config({}), make_case(5, {})
    metrics = run_objective(case, config)[1]
    gaps = [np.abs(n - b) for n, b in zip(case["new"], case["behavior"], strict=True)]
    same, older = np.concatenate([gaps[0], gaps[2]]), np.concatenate([gaps[1], gaps[3]])
    assert metrics["mismatch/mean"] == pytest.approx(same.mean(), rel=1e-6)
    assert metrics["mismatch/max"] == pytest.approx(same.max(), rel=1e-6)
    assert metrics["staleness/log_ratio"] == pytest.approx(older.mean(), rel=1e-6)
    # KL(behaviour || policy) by k3 over the tokens of the older policy: r - 1 - log r with r = policy / behaviour
    log_r = np.concatenate([case["new"][s] - case["behavior"][s] for s in (1, 3)])
    assert metrics["staleness/kl"] == pytest.approx((np.exp(log_r) - 1 - log_r).mean(), rel=1e-4)


def test_a_stand_in_adds_nothing_but_a_graph():
    config = make_config({"kl_coefficient": 0.1, "entropy_coefficient": 0.1, "loss_aggregation": "sequence"})
    batch = make_micro_batch([], CPU)
    logprobs = torch.full((1,), -3.0, requires_grad=True)
    batch.reference_logprobs_T = torch.full((1,), -2.0)
    sums = MetricSums(means=MEANS, maxima=MAXIMA, device=CPU)
    loss = PolicyObjective(config).loss(
        lambda tokens: (logprobs, torch.ones(1)),
        batch,
        Denominators(tokens=10, sequences=2),
        sums,
        unchanged_version=VERSION,
    )
    loss.backward()
    assert loss.item() == 0.0
    assert logprobs.grad.tolist() == [0.0]
    assert sums.reduce(lambda values, op: values)[0] == {}  # a mean over nothing is left out
