"""Fake tensors see what the learner's code stores: more tokens, fewer with recomputed layers, as the planner counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.fake_memory import measure, planned
from r1ray.config.load import load_config
from r1ray.models.folder import ModelShape

SHAPE = ModelShape(
    parameters=4_692_224,
    layers=6,
    hidden=256,
    heads=8,
    intermediate=704,
    key_value=128,
    key_value_heads=4,
    vocabulary=1024,
    context=4096,
    output=0,
    recomputes=True,
)
SETTINGS = ["model.max_length=1024", "data.max_prompt_tokens=128", "learner.ranks=4"]
SETTINGS += ["rollout.max_new_tokens=896", "evaluation.max_new_tokens=896", "learner.micro_batch_tokens=8192"]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_layer_stores_what_the_plan_counts_and_the_plan_is_an_upper_bound(checkpointing: bool) -> None:
    switch = f"model.activation_checkpointing={str(checkpointing).lower()}"
    config = load_config(["models/qwen2.5-1.5b"], [*SETTINGS, switch]).config
    deep = replace(SHAPE, layers=2 * SHAPE.layers)
    found, deeper = measure(config, SHAPE), measure(config, deep)
    plan, more = planned(config, SHAPE), planned(config, deep)
    assert found["parameters"] == SHAPE.parameters
    assert found["weights"] == plan["weights"]
    part = "one micro-batch"
    assert deeper[part] - found[part] == pytest.approx(more[part] - plan[part], rel=0.05)
    assert found[part] <= plan[part]
