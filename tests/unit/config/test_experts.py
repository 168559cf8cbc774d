"""Settings that divided experts cannot have, each refused with the nearest one that works."""

from __future__ import annotations

import pytest

from r1ray.config.load import load_config
from r1ray.errors import ConfigError

DIVIDED = ["learner.expert_parallel=2", "learner.ranks=2"]


def test_two_ranks_may_divide_the_experts() -> None:
    assert load_config(["tiny"], DIVIDED).config.learner.expert_parallel == 2


@pytest.mark.parametrize(
    ("overrides", "key", "fix"),
    [
        (["learner.expert_parallel=4", "learner.ranks=6"], "expert_parallel = 4", "use 3, or learner.ranks=8"),
        (["learner.zero_stage=3"], "zero_stage = 3", "use 2, or learner.expert_parallel=1"),
        (["learner.sequence_parallel=2"], "expert_parallel = 2", "use 1, or learner.sequence_parallel=1"),
        (["model.lora.rank=8"], "expert_parallel = 2", "use 1, or model.lora.rank=null"),
        (
            ["learner.num_gpus=1", "learner.zero_stage=1", "learner.offload_optimizer=true"],
            "expert_parallel = 2",
            "use 1, or learner.offload_optimizer=false",
        ),
    ],
)
def test_what_was_not_tried_with_divided_experts_is_refused(overrides: list[str], key: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(["tiny"], [*DIVIDED, *overrides])
    (about,) = (line for line in str(caught.value).splitlines() if f"learner.{key}" in line.partition(":")[0])
    assert fix in about


def test_a_reward_model_has_no_divided_experts() -> None:
    given = ["model.path=m", "data.train=[{name: c, kind: jsonl, path: c.jsonl}]", *DIVIDED]
    load_config([], given, use="sft")
    with pytest.raises(ConfigError, match=r"learner\.expert_parallel = 2 .*not those of a reward model; use 1"):
        load_config([], given, use="reward-model")
