"""Figures of whole trainings, and the arguments that TRL gets."""

from __future__ import annotations

import pytest

from benchmarks.end_to_end.__main__ import WORKLOADS, Training
from benchmarks.end_to_end.trl import arguments
from r1ray.config.load import load_config

TRAINING = Training(
    began=100.0,
    ends=(120.0, 121.0, 122.0, 123.0, 125.0, 126.0),
    tokens=(10, 10, 10, 40, 50, 60),
    accuracy=(0.1, 0.7, 0.8, 0.9, 0.95, 0.9),
    counted=slice(2, -1),
)


def test_the_first_and_the_last_steps_do_not_count_as_speed() -> None:
    assert TRAINING.tokens_s == 90 / 3
    assert TRAINING.start_s == 20.0


@pytest.mark.parametrize(("level", "seconds"), [(0.5, 2.0), (0.79, 3.0), (0.9, 6.0), (0.95, None)])
def test_accuracy_is_the_mean_of_three_steps(level: float, seconds: float | None) -> None:
    assert TRAINING.seconds_to(level) == seconds


def test_trl_generates_and_trains_as_many_completions_in_as_many_steps() -> None:
    config = load_config(["tiny"], ["rollout.group_size=4"]).config
    given = arguments(config, 1000, 7, "out")
    assert given["generation_batch_size"] == 32 * 4
    assert given["per_device_train_batch_size"] == 64
    assert given["max_steps"] == 7 * 2
    assert (given["num_generations"], given["learning_rate"], given["lr_scheduler_type"]) == (4, 5e-4, "linear")


def test_trl_accumulates_gradients_of_what_does_not_fit_into_one_backward_pass() -> None:
    given = arguments(load_config(["tiny"]).config, 16, 7, "out")
    assert (given["per_device_train_batch_size"], given["gradient_accumulation_steps"]) == (16, 8)


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_workloads_are_configurations(name: str) -> None:
    workload = WORKLOADS[name]
    config = load_config([workload.overlay], [*workload.settings, "evaluation.every_steps=0"]).config
    step = config.learner.groups_per_step * config.rollout.group_size
    assert config.run.steps >= max(5, workload.trl_steps)
    assert step // config.learner.minibatches % min(workload.sequences, step // config.learner.minibatches) == 0
