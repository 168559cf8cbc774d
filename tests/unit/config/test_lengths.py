"""The length of completions over a run."""

from __future__ import annotations

import pytest

from r1ray.config.lengths import completion_limit, longest_completion
from r1ray.config.load import load_config
from r1ray.config.schema import Config, LengthConfig
from r1ray.errors import ConfigError


def test_the_limit_of_a_prompt_depends_on_its_index() -> None:
    config = Config()
    config.rollout.max_new_tokens, config.learner.groups_per_step = 100, 8
    config.rollout.length_schedule = [
        LengthConfig(from_step=2, max_new_tokens=200),
        LengthConfig(from_step=5, max_new_tokens=150),
    ]
    assert [completion_limit(config, i) for i in (0, 15, 16, 39, 40, 10**9)] == [100, 100, 200, 200, 150, 150]
    assert longest_completion(config) == 200


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        ("[{from_step: 5, max_new_tokens: 20}, {from_step: 2, max_new_tokens: 30}]", "order of its steps"),
        ("[{from_step: 5, max_new_tokens: 4096}]", "model.max_length"),
        ("[{from_step: -1, max_new_tokens: 20}]", "length_schedule.0.from_step"),
        ("[{from_step: 1, max_new_tokens: 0}]", "length_schedule.0.max_new_tokens"),
    ],
)
def test_an_impossible_schedule_is_refused(schedule: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_config(["tiny"], [f"rollout.length_schedule={schedule}"])


def test_the_first_step_needs_a_source() -> None:
    with pytest.raises(ConfigError, match="leaves the first step without a source"):
        load_config(["tiny"], ["data.train.0.from_step=3"])
