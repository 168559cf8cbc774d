"""Adapters: their gradients, and the base model without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from learner.batch import pack_tokens
from learner.lora import ADAPTER_PARTS, adapted, adapters_off, new_adapters
from tests.integration.learner_support import LORA, VOCABULARY, load_policy, make_config, make_model, with_weights
from tests.integration.test_shared_prompts import in_float64

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

CPU = torch.device("cpu")
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapted_policy(folder: Path, **changes: Any) -> Any:
    """A policy whose adapters are random, B too."""
    from learner.model import empty_policy

    config = make_config(folder, **{**LORA, **changes})
    policy = empty_policy(config.model, folder)
    policy = with_weights(policy, folder, new_adapters(policy.hf, seed=1))
    for layer in adapted(policy).values():
        layer.lora_B.data.normal_(std=0.3, generator=torch.Generator().manual_seed(2))
    return policy


def logprobs(policy: Any) -> Tensor:
    rng = np.random.default_rng(4)
    prompts = [rng.integers(0, VOCABULARY, n, dtype=np.int32) for n in (7, 7, 2)]
    prompts[1] = prompts[0]
    completions = [rng.integers(0, VOCABULARY, n, dtype=np.int32) for n in (12, 5, 9)]
    logprob_T, entropy_T = policy(pack_tokens(prompts, completions, [0.8] * 3, CPU, groups=[0, 0, 1]))
    weights = torch.randn(2, len(logprob_T), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    result: Tensor = weights[0] * logprob_T + weights[1] * entropy_T
    return result


@pytest.mark.parametrize("targets", [ALL, ["q_proj", "mlp.down_proj"]])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_the_merged_weight_and_reach_adapters_only(
    tmp_path: Path, targets: list[str], checkpointing: bool
) -> None:
    """With G the gradient of the merged weight W + s B A: that of B is s G A', that of A is s B' G."""
    folder = make_model(tmp_path / "model")
    changes = {"model__activation_checkpointing": checkpointing}
    policy = in_float64(adapted_policy(folder, model__lora__targets=targets, **changes))
    layers = adapted(policy)
    assert {name.rpartition(".")[2] for name in layers} == {target.rpartition(".")[2] for target in targets}

    merged = in_float64(load_policy(make_config(folder).model, folder))
    for name, layer in layers.items():
        merged.get_parameter(f"{name}.weight").data = layer.merged()
    computed, expected = logprobs(policy), logprobs(merged)
    torch.testing.assert_close(computed, expected, rtol=1e-11, atol=1e-11)
    computed.sum().backward()
    expected.sum().backward()

    own = {f"{name}.{part}" for name in layers for part in ADAPTER_PARTS}
    assert {name for name, p in policy.named_parameters() if p.grad is not None} == own
    for name, layer in layers.items():
        g = merged.get_parameter(f"{name}.weight").grad
        torch.testing.assert_close(layer.lora_B.grad, 2.0 * g @ layer.lora_A.T, rtol=1e-8, atol=1e-11)
        torch.testing.assert_close(layer.lora_A.grad, 2.0 * layer.lora_B.T @ g, rtol=1e-8, atol=1e-11)
        assert float(layer.lora_A.grad.abs().max()) > 1e-4


def test_without_their_adapters_the_layers_are_the_base_model(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    policy, base = adapted_policy(folder), load_policy(make_config(folder).model, folder)
    with torch.no_grad():
        with adapters_off(policy):
            assert torch.equal(logprobs(policy), logprobs(base))
        assert not torch.allclose(logprobs(policy), logprobs(base), atol=1e-2)
