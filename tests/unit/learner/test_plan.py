"""What a step derives from the configuration and the manifest alone: names, schedule, advantages,
denominators, metrics.
"""

import dataclasses
from typing import get_args

import pytest

from benchmarks.groups import make_manifest
from learner.advantages import ADVANTAGES
from learner.assemble import batch_advantages, denominators, fetch_groups, is_trained, silent_completions
from learner.importance import CORRECTIONS
from learner.losses import LOSSES, Aggregation
from learner.metrics import MetricSums, manifest_metrics
from learner.schedules import SCHEDULES, learning_rate
from r1ray.codec import pack_scored
from r1ray.config.keys import leaf_keys
from r1ray.config.schema import OptimizerConfig
from r1ray.errors import IntegrityError
from r1ray.types import FOREIGN_POLICY
from tests.integration.learner_support import make_config, make_groups


def changed(**changes):
    return make_config("model", **{**DEFAULTS, **changes})


DEFAULTS = {"rollout__temperature": 1.0}


# -- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("algorithm.loss", LOSSES),
        ("algorithm.advantage", ADVANTAGES),
        ("algorithm.loss_aggregation", get_args(Aggregation)),
        ("algorithm.importance_correction", CORRECTIONS),
        ("learner.optimizer.schedule", SCHEDULES),
    ],
)
def test_what_a_configuration_may_name_is_what_there_is(key, known):
    assert set(dict(leaf_keys())[key].choices) == set(known)


# -- schedule -------------------------------------------------------------------------------------------------------


def lr(step, **settings):
    return learning_rate(step, 10, OptimizerConfig(lr=1.0, **settings))


def test_schedules_by_hand():
    assert [lr(s) for s in (0, 5, 9)] == [1.0, 1.0, 1.0]
    assert [lr(s, schedule="linear") for s in (0, 5, 9, 10)] == pytest.approx([1.0, 0.5, 0.1, 0.0])
    assert [lr(s, schedule="cosine") for s in (0, 5, 10)] == pytest.approx([1.0, 0.5, 0.0])
    assert [lr(s, schedule="linear", min_lr_ratio=0.2) for s in (0, 5, 10)] == pytest.approx([1.0, 0.6, 0.2])
    assert [lr(s, warmup_steps=4, schedule="linear") for s in range(8)] == pytest.approx(
        [0.25, 0.5, 0.75, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6]
    )
    assert lr(25, schedule="cosine", min_lr_ratio=0.1) == pytest.approx(0.1)  # beyond the end: the floor


# -- from the manifest ----------------------------------------------------------------------------------------------


def summary(lengths, rewards, prompt_tokens=4):
    group = make_manifest(0, make_groups(0, groups=1)).groups[0]
    return dataclasses.replace(
        group, completion_tokens=tuple(lengths), rewards=tuple(rewards), prompt_tokens=prompt_tokens
    )


def batch(*groups):
    return dataclasses.replace(make_manifest(0, []), groups=groups)


def test_overlong_completions_lose_reward_before_advantages_are_taken():
    config = changed(
        algorithm__overlong_buffer_tokens=4, algorithm__overlong_penalty=0.5, algorithm__advantage="mean_only"
    )
    found = batch_advantages(batch(summary([10, 24], [1.0, 1.0])), ADVANTAGES[config.algorithm.advantage], config)
    assert found[0].tolist() == pytest.approx([0.25, -0.25])


def test_truncated_completions_are_left_out_of_loss_and_denominators():
    """Limits: 24 new tokens, 64 tokens in all. A prompt of 50 leaves room for 14."""
    groups = (summary([24, 23], [0, 1]), summary([14, 13, 5], [0, 1, 0], prompt_tokens=50))
    config = changed(algorithm__mask_truncated=True)
    assert [is_trained(groups[0], c, config) for c in range(2)] == [False, True]
    assert [is_trained(groups[1], c, config) for c in range(3)] == [False, True, True]
    counted = denominators(batch(*groups), [0, 1], config)
    assert (counted.tokens, counted.sequences) == (23 + 13 + 5, 3)
    everything = denominators(batch(*groups), [0, 1], changed())
    assert (everything.tokens, everything.sequences) == (24 + 23 + 14 + 13 + 5, 5)
    nothing = denominators(batch(summary([24], [0])), [0], config)
    assert (nothing.tokens, nothing.sequences) == (1, 1)  # divides a sum of nothing


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [[[0, 1, 2]], [[1]]]),
        ({"algorithm__mask_truncated": True}, [[[0], [1, 2]], [[1]]]),
        ({"algorithm__kl_coefficient": 0.1}, [[], []]),
        ({"algorithm__entropy_coefficient": 0.1}, [[], []]),
        ({"algorithm__kl_coefficient": 0.1, "algorithm__mask_truncated": True}, [[[0]], []]),
        ({"algorithm__loss": "own_loss:loss"}, [[], []]),
    ],
)
def test_silent_completions_have_no_advantage_and_no_other_term(changes, expected):
    """Rewards 0.1 have a mean that differs from them in the last bit: still no advantage. 24 tokens are truncated."""
    groups = batch(summary([24, 23, 5], [0.1, 0.1, 0.1]), summary([3, 4, 5], [0.0, 0.5, 1.0]))
    config = changed(**changes)
    for name in ("group_norm", "mean_only", "leave_one_out"):
        found = silent_completions(groups, batch_advantages(groups, ADVANTAGES[name], config), config)
        assert found == expected


def test_only_needed_groups_are_fetched_and_contradictions_are_refused():
    groups = make_groups(0)
    manifest = make_manifest(0, groups)
    asked = []

    def fetch(ids):
        asked.append(ids)
        return [pack_scored(g) for g in groups if g.rollout.group_id in ids]

    assert sorted(fetch_groups(manifest, [2, 0, 2], fetch)) == [0, 2]
    assert asked == [["0-0", "2-0"]]
    assert fetch_groups(manifest, [], fetch) == {}
    with pytest.raises(IntegrityError, match="requested 1 groups, got 0"):
        fetch_groups(manifest, [1], lambda ids: [])
    lied = dataclasses.replace(manifest.groups[1], rewards=(9.0,) * 4)
    with pytest.raises(IntegrityError, match="1-0: rewards"):
        fetch_groups(dataclasses.replace(manifest, groups=(manifest.groups[0], lied)), [1], fetch)


def test_metric_sums_reduce_sums_and_maxima_over_ranks():
    import torch

    sums = MetricSums(means=["a", "b"], maxima=["m", "n"], device=torch.device("cpu"))
    sums.add("a", torch.tensor(3.0), torch.tensor(2))
    sums.add("a", 5.0, 2)
    sums.add_max("m", torch.tensor([1.0, 4.0]))
    sums.add_max("n", torch.tensor([]))
    other_rank = {"sum": torch.tensor([[2.0, 0.0], [1.0, 0.0]]), "max": torch.tensor([9.0, -torch.inf])}

    def all_reduce(values, op):
        return values + other_rank[op] if op == "sum" else torch.maximum(values, other_rank[op])

    values, counts = sums.reduce(all_reduce)
    assert values == {"a": 10.0 / 5.0, "m": 9.0}  # b and n were never seen
    assert counts == {"a": 5.0, "b": 0.0}


def test_groups_of_a_recorded_run_have_no_staleness():
    manifest = make_manifest(3, make_groups(3, groups=2, size=2))
    assert manifest_metrics(manifest)["staleness/max"] == 1.0  # their first tokens are of policy 2
    foreign = [
        dataclasses.replace(g, min_policy_version=FOREIGN_POLICY, max_policy_version=FOREIGN_POLICY)
        for g in manifest.groups
    ]
    assert not any(
        key.startswith("staleness") for key in manifest_metrics(dataclasses.replace(manifest, groups=foreign))
    )


def test_rewards_that_pay_for_length_within_groups_are_seen_whatever_the_groups_are_like():
    groups = make_groups(0, groups=2, size=4)
    lengths = [[len(c.token_ids) for c in g.rollout.completions] for g in groups]

    def with_rewards(rewards):
        scored = [
            dataclasses.replace(
                g, scores=tuple(dataclasses.replace(s, reward=r) for s, r in zip(g.scores, row, strict=True))
            )
            for g, row in zip(groups, rewards, strict=True)
        ]
        return manifest_metrics(make_manifest(0, scored)).get("reward/length_correlation")

    assert with_rewards([[100.0 + n for n in lengths[0]], [float(n) for n in lengths[1]]]) == pytest.approx(1.0)
    assert with_rewards([[-2.0 * n for n in lengths[0]], [50 - 2.0 * n for n in lengths[1]]]) == pytest.approx(-1.0)
    assert with_rewards([[3.0] * 4, [0.1] * 4]) is None
