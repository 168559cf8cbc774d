"""Tensors of a model under the names of its checkpoint."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from learner.checkpoint_format import CheckpointFormat, persistent_buffers
from learner.export import export_model
from r1ray.errors import ConfigError
from tests.integration.models import random_experts, random_model, write_model


def converted(hf: Any) -> dict[str, Tensor]:
    checkpoint = CheckpointFormat(hf)
    own = chain(hf.named_parameters(), persistent_buffers(hf))
    return {name: part for n, tensor in own for name, part in checkpoint.tensors(n, tensor.detach())}


@pytest.mark.parametrize("kind", ["dense", "qwen3_moe", "deepseek_v3"])
def test_tensors_are_those_that_transformers_saves_and_an_export_loads_equal(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    hf = random_model(3) if kind == "dense" else random_experts(kind, 3)
    write_model(hf, tmp_path / "saved")
    saved, tensors = load_file(tmp_path / "saved" / "model.safetensors"), converted(hf)
    assert sorted(tensors) == sorted(saved)
    assert all(torch.equal(tensors[name], saved[name]) for name in saved)

    export_model(iter(tensors.items()), source=tmp_path / "saved", target=tmp_path / "exported", writer=True)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "exported").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in hf.state_dict().items())


def test_experts_are_sent_one_by_one_and_the_routing_bias_with_them() -> None:
    tensors = converted(random_experts("deepseek_v3", 0))
    layer = "model.layers.1.mlp"
    assert tensors[f"{layer}.experts.3.down_proj.weight"].shape == (64, 32)
    assert tensors[f"{layer}.gate.e_score_correction_bias"].shape == (4,)
    assert not [name for name in tensors if "gate_up_proj" in name]


def test_a_buffer_that_no_checkpoint_holds_is_left_out() -> None:
    class Rotary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("frequencies", torch.ones(2), persistent=False)
            self.register_buffer("bias", torch.ones(3))

    assert [name for name, _ in persistent_buffers(nn.Sequential(Rotary()))] == ["0.bias"]


def test_a_tensor_made_of_several_parameters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def joins(hf: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        pair = [n for n in tensors if n.endswith((".q_proj.bias", ".k_proj.bias"))]
        kept = {n: t for n, t in tensors.items() if n not in pair}
        return kept | ({"qk.bias": torch.cat([tensors[n] for n in pair])} if pair else {})

    monkeypatch.setattr("transformers.core_model_loading.revert_weight_conversion", joins)
    with pytest.raises(ConfigError, match=r"qwen2: its checkpoint's tensor qk.bias is made of several"):
        CheckpointFormat(random_model(0, num_hidden_layers=1))
