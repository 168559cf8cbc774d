"""What a step derives from the configuration and the manifest alone: checks, schedule, advantages, denominators, metrics."""

import dataclasses
import subprocess
import sys

import pytest

from learner.assemble import batch_advantages, denominators, fetch_groups, is_trained
from learner.checks import check_algorithm, check_learner
from learner.schedules import learning_rate
from learner.tally import Tally
from learner.trainer import manifest_metrics
from r1ray.codec import pack_scored
from r1ray.config.schema import Config, OptimizerConfig
from r1ray.errors import ConfigError, IntegrityError
from tests.integration.learner_support import make_config, make_groups, make_manifest


def changed(**changes):
    return make_config("model", **{**DEFAULTS, **changes})


DEFAULTS = {"rollout__temperature": 1.0}


# -- contradictions -------------------------------------------------------------------------------------------------

CONTRADICTIONS = [
    ({"algorithm__loss": "ppo"}, "one of grpo, dr_grpo, dapo, gspo, cispo"),
    ({"algorithm__advantage": "gae"}, "one of group_norm"),
    ({"algorithm__is_correction": "clipped"}, "one of none, truncated, masked"),
    ({"algorithm__importance": "decuopled"}, "behavior, decoupled"),
    ({"algorithm__loss_aggregation": "mean"}, "token, sequence, constant"),
    ({"algorithm__loss": "dr_grpo", "algorithm__loss_aggregation": "constant"}, "set algorithm.advantage=mean_only"),
    ({"algorithm__loss": "dr_grpo", "algorithm__advantage": "mean_only"}, "set algorithm.loss_aggregation=constant"),
    ({"algorithm__loss": "dapo"}, "set algorithm.clip_high above"),
    (
        {"algorithm__loss": "dapo", "algorithm__clip_high": 0.28, "algorithm__loss_aggregation": "sequence"},
        "algorithm.loss_aggregation=token",
    ),
    ({"algorithm__loss": "gspo"}, "set algorithm.loss_aggregation=sequence"),
    ({"rollout__group_size": 1}, "rollout.group_size=1 must be >= 2"),
    ({"algorithm__clip_low": -0.1}, "must not be negative"),
    ({"algorithm__kl_coefficient": -0.1}, "must not be negative"),
    ({"algorithm__reference_refresh_steps": 400}, "kl_coefficient=0 needs no reference"),
    ({"algorithm__reference_refresh_steps": 0, "algorithm__kl_coefficient": 0.1}, "at least 1"),
    ({"algorithm__is_correction": "truncated"}, "set algorithm.importance=decoupled"),
    (
        {
            "algorithm__is_correction": "masked",
            "algorithm__importance": "decoupled",
            "algorithm__loss": "gspo",
            "algorithm__loss_aggregation": "sequence",
        },
        "one weight per token",
    ),
    (
        {"algorithm__is_correction": "masked", "algorithm__importance": "decoupled", "algorithm__is_cap": 1.0},
        "is_cap=1.0 must be above 1",
    ),
    ({"rollout__temperature": 0.0}, "must be positive"),
    ({"rollout__top_p": 0.9}, "set rollout.top_p=1"),
    ({"algorithm__overlong_buffer_tokens": 24}, "must lie within rollout.max_new_tokens=24"),
    ({"algorithm__overlong_penalty": -1.0}, "must not be negative"),
    ({"model__dtype": "float16"}, "float32, bfloat16"),
    ({"model__attention": "sdpa"}, "auto, packed, flash_attention_2"),
    ({"learner__optimizer__schedule": "step"}, "constant, linear, cosine"),
    ({"learner__zero_stage": 4}, "must be 0, 1, 2 or 3"),
    ({"model__dtype": "bfloat16"}, "set zero_stage=1"),
    ({"learner__offload_optimizer": True}, "needs learner.zero_stage >= 1"),
    ({"learner__offload_parameters": True, "learner__zero_stage": 2}, "needs learner.zero_stage=3"),
    ({"learner__offload_optimizer": True, "learner__zero_stage": 1}, "learner.num_gpus=0"),
    ({"learner__minibatches": 3}, "must divide learner.groups_per_step=4"),
    ({"learner__micro_batch_tokens": 63}, "at least model.max_length=64"),
    ({"learner__optimizer__lr": 0.0}, "must be positive"),
    ({"learner__optimizer__min_lr_ratio": 1.5}, "must lie in"),
    ({"learner__optimizer__warmup_steps": 11}, "within run.steps=10"),
]


@pytest.mark.parametrize(("changes", "message"), CONTRADICTIONS, ids=lambda x: str(x) if isinstance(x, str) else "")
def test_contradictions_are_refused_and_the_message_says_what_to_do(changes, message):
    config = changed(**changes)
    check = check_learner if next(iter(changes)).startswith(("model", "learner")) else check_algorithm
    with pytest.raises(ConfigError) as error:
        check(config)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"algorithm__loss": "dr_grpo", "algorithm__advantage": "mean_only", "algorithm__loss_aggregation": "constant"},
        {"algorithm__loss": "dapo", "algorithm__clip_high": 0.28, "algorithm__overlong_buffer_tokens": 4},
        {"algorithm__loss": "gspo", "algorithm__loss_aggregation": "sequence"},
        {"algorithm__loss": "cispo", "algorithm__importance": "decoupled", "algorithm__is_correction": "masked"},
        {"algorithm__advantage": "reinforce_pp", "rollout__group_size": 1},
        {"rollout__top_p": 0.9, "algorithm__importance": "decoupled"},
        {"algorithm__kl_coefficient": 0.001, "algorithm__reference_refresh_steps": 400},
        {"model__dtype": "bfloat16", "learner__zero_stage": 3},
    ],
)
def test_what_papers_and_recipes_use_is_accepted(changes):
    check_algorithm(changed(**changes))
    check_learner(changed(**changes))


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ConfigError, match="mean_only") as error:
        check_algorithm(changed(algorithm__loss="dr_grpo", rollout__temperature=0.0))
    assert "temperature" in str(error.value)


def test_checks_need_no_torch():
    code = "import sys, learner.checks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


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
    found = batch_advantages(batch(summary([10, 24], [1.0, 1.0])), config)
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
    with pytest.raises(IntegrityError, match="asked for 1 groups, got 0"):
        fetch_groups(manifest, [1], lambda ids: [])
    lied = dataclasses.replace(manifest.groups[1], rewards=(9.0,) * 4)
    with pytest.raises(IntegrityError, match="1-0: rewards"):
        fetch_groups(dataclasses.replace(manifest, groups=(manifest.groups[0], lied)), [1], fetch)


def test_tally_reduces_sums_and_maxima_over_ranks():
    import torch

    tally = Tally(means=["a", "b"], maxima=["m", "n"], device=torch.device("cpu"))
    tally.add("a", torch.tensor(3.0), torch.tensor(2))
    tally.add("a", 5.0, 2)
    tally.largest("m", torch.tensor([1.0, 4.0]))
    tally.largest("n", torch.tensor([]))
    other_rank = {"sum": torch.tensor([[2.0, 0.0], [1.0, 0.0]]), "max": torch.tensor([9.0, -torch.inf])}

    def all_reduce(values, op):
        return values + other_rank[op] if op == "sum" else torch.maximum(values, other_rank[op])

    values, counts = tally.reduce(all_reduce)
    assert values == {"a": 10.0 / 5.0, "m": 9.0}  # b and n were never seen
    assert counts == {"a": 5.0, "b": 0.0}


def test_default_configuration_contradicts_nothing_but_its_missing_model():
    config = Config()
    check_algorithm(config)
    check_learner(config)


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
