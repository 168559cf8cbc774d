"""Experts of vLLM's completions, without vLLM."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from actors.engine_arguments import engine_arguments
from actors.routing import experts_of
from r1ray.config.schema import Config
from r1ray.errors import EngineRefused


def config(routing: str, gpus: float = 0.0) -> Config:
    made = Config()
    made.algorithm.routing, made.rollout.num_gpus = routing, gpus
    return made


def test_the_rows_behind_those_of_the_prompt_are_the_completions():
    """vLLM's own rows begin with the prompt; position p predicts token p + 1."""
    rows = np.arange(40 * 2 * 3, dtype=np.uint8).reshape(40, 2, 3)
    output = SimpleNamespace(routed_experts=rows)
    replayed = experts_of(output, 35, config("replay"))
    assert np.array_equal(replayed.ids, rows[5:])
    compared = experts_of(output, 35, config("compare"))
    assert (compared.every, compared.ids.dtype) == (16, np.uint8)
    assert np.array_equal(compared.ids, rows[[5, 21, 37]])
    assert experts_of(output, 35, config("ignore")) is None


@pytest.mark.parametrize("rows", [None, np.zeros((2, 1, 1), dtype=np.uint8)])
def test_missing_rows_are_refused(rows):
    with pytest.raises(EngineRefused, match=r"algorithm.routing: .* \d positions for 3 tokens"):
        experts_of(SimpleNamespace(routed_experts=rows), 3, config("compare"))


def test_on_a_gpu_vllm_hands_them_out_itself():
    asked = [(routing, gpus) for routing in ("ignore", "compare", "replay") for gpus in (0.0, 1.0)]
    found = [engine_arguments(config(*case), "m").get("enable_return_routed_experts", False) for case in asked]
    assert found == [False, False, False, True, False, True]
