"""The simulated pipeline: what it does in cases that can be computed by hand, and that it is fast."""

from __future__ import annotations

from dataclasses import replace

import pytest

from r1ray.config.load import load_config
from r1ray.models.published import PUBLISHED
from r1ray.planning.rates import Efficiency, Rates
from r1ray.planning.scenario import Outcome, Scenario
from r1ray.planning.simulation import simulate

SAME = Scenario(mean_tokens=1000.0, spread=0.0, prompt_tokens=100.0, steps=12)
TAILED = replace(SAME, spread=0.7)


def rates(*overrides: str, **efficiency: float) -> Rates:
    small = ("checkpoint.every_steps=1000", "learner.groups_per_step=32", *overrides)
    config = load_config(["models/qwen2.5-7b"], small).config
    return Rates(config=config, shape=PUBLISHED["qwen2.5-7b"], efficiency=replace(Efficiency(), **efficiency))


def outcome(*overrides: str, scenario: Scenario = SAME, **efficiency: float) -> Outcome:
    return simulate(rates(*overrides, **efficiency), scenario)


def test_a_synchronous_run_takes_generation_and_training_one_after_the_other() -> None:
    r = rates("queue.max_staleness=0", "rollout.workers=2")
    found = simulate(r, SAME)
    generation = 1000 * r.engine_step_s(256, 600.0)  # 32 groups of 16 on two engines of 256
    training = r.training_s(32 * 16 * 1100.0, 600.0) + r.sync_s()
    assert found.step_s == pytest.approx(generation + training, rel=1e-3)
    assert found.staleness == 0
    assert found.learner_idle == pytest.approx(generation / found.step_s, rel=1e-3)


def test_an_asynchronous_run_takes_the_slower_side() -> None:
    r = rates("rollout.workers=8")
    found = simulate(r, SAME)
    training = r.training_s(32 * 16 * 1100.0, 600.0) + r.sync_s()
    assert found.step_s == pytest.approx(training, rel=0.02)
    assert 0 < found.staleness <= 1
    assert found.learner_idle < 0.02


def test_long_tails_and_slow_engines_cost_time_and_staleness_stays_within_the_bound() -> None:
    bound = ("queue.max_staleness=1", "rollout.workers=2")
    even, tailed = outcome(*bound, training_share=5.0), outcome(*bound, scenario=TAILED, training_share=5.0)
    slow = outcome(*bound, scenario=replace(TAILED, slow_share=0.5), training_share=5.0)
    assert even.step_s < tailed.step_s < slow.step_s
    assert max(even.staleness, tailed.staleness, slow.staleness) <= 1


def test_kept_keys_and_values_are_not_computed_again() -> None:
    slow = {"training_share": 5.0, "prefill_share": 0.01}
    again = outcome("rollout.workers=2", scenario=TAILED, **slow)
    kept = outcome("rollout.workers=2", "sync.kv_cache=keep", scenario=TAILED, **slow)
    assert kept.step_s < 0.95 * again.step_s


def test_losses_cost_time_and_are_counted() -> None:
    calm = outcome(scenario=TAILED)
    failing = outcome(scenario=replace(TAILED, mtbf_hours=0.5, spot_hours=0.5))
    assert (calm.lost_engines, calm.lost_learners) == (0, 0)
    assert failing.lost_engines > 0
    assert failing.lost_learners > 0
    assert failing.step_s > calm.step_s


def test_processes_that_share_cores_slow_each_other_down() -> None:
    alone = outcome("rollout.workers=4", scenario=replace(SAME, cores=None))
    shared = outcome("rollout.workers=4", scenario=replace(SAME, cores=2))
    assert shared.step_s > 1.5 * alone.step_s


def test_measured_lengths_take_the_place_of_the_distribution() -> None:
    found = outcome("queue.max_staleness=0", scenario=replace(SAME, lengths=(10, 30)))
    assert found.tokens_s * found.step_s == pytest.approx(32 * 16 * 20, rel=0.05)


def test_a_seed_gives_the_same_outcome() -> None:
    assert outcome(scenario=TAILED) == outcome(scenario=TAILED)
    assert outcome(scenario=TAILED) != outcome(scenario=replace(TAILED, seed=1))
