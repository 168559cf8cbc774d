"""Which layers get adapters, and their first values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from learner.lora import LoraLinear, adapted, add_adapters, merge_stored, new_adapters
from r1ray.config.schema import LoraConfig
from r1ray.errors import ConfigError, IntegrityError


def small_model(**changes: Any) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "vocab_size": 20, "max_position_embeddings": 16}
    return Qwen2ForCausalLM(Qwen2Config(**{**sizes, **changes}))


def test_targets_get_adapters_and_everything_else_is_frozen() -> None:
    hf = small_model()
    names = [name for name, _ in hf.named_parameters()]
    weight = hf.model.layers[1].mlp.up_proj.weight
    add_adapters(hf, LoraConfig(rank=2, alpha=3.0, targets=["k_proj", "mlp.up_proj"]))
    layers = adapted(hf)
    assert list(layers) == [f"model.layers.{i}.{name}" for i in (0, 1) for name in ("self_attn.k_proj", "mlp.up_proj")]
    assert layers["model.layers.1.mlp.up_proj"].weight is weight
    assert layers["model.layers.0.self_attn.k_proj"].bias is not None
    trained = [name for name, p in hf.named_parameters() if p.requires_grad]
    assert trained == [f"{name}.{part}" for name in layers for part in ("lora_A", "lora_B")]
    assert [name for name, _ in hf.named_parameters() if name not in trained] == names
    assert [tuple(p.shape) for name, p in hf.named_parameters() if name in trained[:2]] == [(2, 8), (4, 2)]
    assert layers["model.layers.0.mlp.up_proj"].scale == 1.5


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_proj", "query"], "no linear layer of the model is named query"),
        (["proj"], "no linear layer of the model is named proj"),
        (["lm_head"], "lm_head is lm_head of the model"),
        (["embed_tokens"], "embed_tokens is model.embed_tokens"),
        (["mlp"], "mlp is model.layers.0.mlp"),
    ],
)
def test_what_is_not_a_linear_layer_of_a_block_is_refused(targets: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        add_adapters(small_model(tie_word_embeddings=False), LoraConfig(rank=2, targets=targets))


def test_adapters_begin_as_nothing_and_depend_on_the_seed() -> None:
    def values(seed: int) -> dict[str, torch.Tensor]:
        hf = small_model()
        add_adapters(hf, LoraConfig(rank=2, targets=["q_proj"]))
        made = {}
        for name, fill in new_adapters(hf, seed).items():
            made[name] = torch.full_like(hf.get_parameter(name), 7.0, device="cpu", requires_grad=False)
            fill(made[name])
        return made

    first, second, other = values(0), values(0), values(1)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name])
        if name.endswith("lora_B"):
            assert not tensor.any()
        else:
            assert not torch.equal(tensor, other[name])
            assert 0.1 < float(tensor.abs().max()) <= 8**-0.5
    assert not torch.equal(*[t for name, t in first.items() if name.endswith("lora_A")])


def test_an_adapted_layer_by_hand() -> None:
    """x = (1, 2): W x + b = (1, 2) + (1, 0), A x = 3, B = (1, -1), times 0.5."""
    linear = torch.nn.Linear(2, 2)
    linear.weight.data, linear.bias.data = torch.eye(2), torch.tensor([1.0, 0.0])
    layer = LoraLinear(linear, rank=1, scale=0.5)
    layer.lora_A = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
    layer.lora_B = torch.nn.Parameter(torch.tensor([[1.0], [-1.0]]))
    assert layer(torch.tensor([1.0, 2.0])).tolist() == [3.5, 0.5]
    assert layer.merged().tolist() == [[1.5, 0.5], [-0.5, 0.5]]
    layer.adapter_on = False
    assert layer(torch.tensor([1.0, 2.0])).tolist() == [2.0, 2.0]


def test_an_adapter_without_a_weight_in_the_base_model_is_refused(tmp_path: Path) -> None:
    adapters = {f"{layer}.{part}": torch.ones(1, 1) for layer in ("a", "b") for part in ("lora_A", "lora_B")}
    base = iter([("a.weight", torch.ones(1, 1, dtype=torch.bfloat16)), ("c.weight", torch.ones(2))])
    merged = merge_stored(base, adapters, {"alpha": 4.0, "rank": 1})
    assert next(merged)[1].tolist() == [[5.0]]
    with pytest.raises(IntegrityError, match="no weight b"):
        list(merged)
