"""Recomputation for the backward pass: the same values and gradients, and fewer stored vectors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learner import attention, recompute
from learner.attention import make_layout
from learner.recompute import GatedProduct, Recomputer, RmsNorm, install

CPU = torch.device("cpu")
HIDDEN, KEY_VALUE, INTERMEDIATE, HEADS = 32, 16, 48, 4


def llama(layers: int, **changes: Any) -> Any:
    from transformers import LlamaConfig, LlamaModel

    sizes = {"hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_attention_heads": HEADS}
    sizes |= {"num_key_value_heads": 2, "vocab_size": 61, "num_hidden_layers": layers}
    torch.manual_seed(0)
    model = LlamaModel(LlamaConfig(**{**sizes, "initializer_range": 0.2, **changes}))
    model.set_attn_implementation(attention.choose("packed", cuda=False))
    return model.train()


def forward(model: Any, recomputer: Recomputer | None, lengths: list[int]) -> Tensor:
    """The last hidden states [N, H] of random sequences of these lengths."""
    ids = torch.randint(61, (1, sum(lengths)), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    arguments = {"input_ids": ids, "position_ids": positions, "use_cache": False, "layout": make_layout(lengths, CPU)}
    if recomputer is None:
        hidden: Tensor = model(**arguments).last_hidden_state[0]
        return hidden
    with recomputer.hooks():
        hidden = model(**arguments).last_hidden_state[0]
    return hidden


def gradients(model: Any, recomputer: Recomputer | None) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    hidden = forward(model, recomputer, [5, 1, 9, 4])
    (hidden * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    return hidden.detach(), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("bias", [False, True])
def test_values_are_those_of_transformers_and_gradients_too(bias: bool) -> None:
    plain = gradients(llama(2, attention_bias=bias, mlp_bias=bias), None)
    model = llama(2, attention_bias=bias, mlp_bias=bias)
    ours = gradients(model, install(model))
    assert torch.equal(ours[0], plain[0])
    for name, expected in plain[1].items():
        torch.testing.assert_close(ours[1][name], expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_a_second_backward_pass_of_one_forward_pass_gives_the_same() -> None:
    model = llama(1)
    hidden = forward(model, install(model), [3, 4]).square().sum()
    parameters = list(model.parameters())
    first = torch.autograd.grad(hidden, parameters, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(hidden, parameters), first)


def stored_per_token(layers: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """Values that a forward pass keeps per token, each storage once; parameters and indices not counted."""
    model, lengths = llama(layers), [16] * 4
    storages: dict[int, tuple[Tensor, int]] = {}
    weights = {p.data_ptr() for p in model.parameters()}
    pack = Recomputer._pack

    def spy(self: Recomputer, tensor: Tensor) -> Any:
        packed = pack(self, tensor)
        if isinstance(packed, Tensor) and packed.is_floating_point() and packed.data_ptr() not in weights:
            storage = packed.untyped_storage()
            storages[storage.data_ptr()] = (packed, storage.nbytes() // 4)
        return packed

    monkeypatch.setattr(Recomputer, "_pack", spy)
    hidden = forward(model, install(model), lengths)
    assert hidden.requires_grad
    return sum(size for _, size in storages.values()) / sum(lengths)


def test_a_layer_keeps_what_the_memory_plan_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four hidden, two key-value and two intermediate vectors, two factors, and a log-sum-exp of each head."""
    layer = stored_per_token(3, monkeypatch) - stored_per_token(2, monkeypatch)
    assert layer == 4 * HIDDEN + 2 * KEY_VALUE + 2 * INTERMEDIATE + 2 + HEADS


def test_gradients_of_both_functions_in_float64() -> None:
    torch.manual_seed(0)
    x, weight, gate, up = (
        torch.randn(*size, dtype=torch.float64, requires_grad=True) for size in ((2, 5, 7), (7,), (3, 4), (3, 4))
    )
    assert torch.autograd.gradcheck(lambda x, w: RmsNorm.apply(x, w, 1e-6)[0], (x, weight))
    assert torch.autograd.gradcheck(lambda g, u: GatedProduct.apply(g, u, []), (gate, up))


def test_bfloat16_is_normalised_in_float32() -> None:
    x, weight = torch.randn(4, 64).bfloat16(), torch.rand(64).bfloat16()
    y, factor = RmsNorm.apply(x, weight, 1e-6)
    assert (y.dtype, factor.dtype) == (torch.bfloat16, torch.float32)
    wide = x.float()
    assert torch.equal(y, weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)).bfloat16())


class OneMoreRMSNorm(nn.Module):
    """As Gemma does it: the weight is a difference from one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.full((8,), 0.5)), 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return (1 + self.weight) * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)


class GeluMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        down: Tensor = self.down_proj(F.gelu(self.gate_proj(x)) * self.up_proj(x))
        return down


def test_layers_of_another_formula_stay_as_they_are() -> None:
    model = nn.Sequential(OneMoreRMSNorm(), GeluMLP())
    install(model)
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_result_is_known_by_its_memory_as_long_as_it_may_be_stored() -> None:
    """Its memory is not given to another tensor meanwhile, and of many results only the last count."""
    recomputer = Recomputer()
    weight = torch.ones(4, requires_grad=True)
    with recomputer.hooks():
        first = torch.full((4,), 3.0)
        recomputer.offer(first, lambda: torch.full((4,), 5.0))  # a recipe that is wrong, so that it shows
        taken = (weight * first).sum()
        for _ in range(recompute._RECENT):
            recomputer.offer(torch.zeros(4), lambda: torch.zeros(4))
        forgotten = (weight * first).sum()
    assert torch.autograd.grad(taken, weight)[0].tolist() == [5.0] * 4
    assert torch.autograd.grad(forgotten, weight)[0].tolist() == [3.0] * 4


def test_without_gradients_nothing_is_offered() -> None:
    recomputer = Recomputer()
    with torch.no_grad(), recomputer.hooks():
        recomputer.offer(torch.zeros(4), lambda: torch.zeros(4))
        assert not recomputer._recent
