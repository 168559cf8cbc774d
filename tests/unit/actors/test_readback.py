"""Served weights against received ones, for modules shaped as vLLM's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from actors.readback import differing_weights

EXPERTS, INTERMEDIATE, HIDDEN = 3, 4, 6


class Served(nn.Module):
    """A layer of experts, held as vLLM holds it."""

    def __init__(self, received: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.mlp = nn.Module()
        self.mlp.experts = nn.Module()
        self.mlp.experts.routed_experts = routed = nn.Module()
        gate, up, down = ([received[name(e, p)] for e in range(EXPERTS)] for p in ("gate_proj", "up_proj", "down_proj"))
        fused = [torch.cat(pair) for pair in zip(gate, up, strict=True)]
        routed.w13_weight = nn.Parameter(torch.stack(fused))
        routed.w2_weight = nn.Parameter(torch.stack(down))


def name(expert: int, projection: str) -> str:
    return f"mlp.experts.{expert}.{projection}.weight"


def random_experts() -> dict[str, torch.Tensor]:
    wide, narrow = (INTERMEDIATE, HIDDEN), (HIDDEN, INTERMEDIATE)
    shapes = {"gate_proj": wide, "up_proj": wide, "down_proj": narrow}
    return {name(e, p): torch.randn(shape) for e in range(EXPERTS) for p, shape in shapes.items()}


def test_equal_experts_are_equal() -> None:
    received = random_experts()
    assert differing_weights(Served(received), received) == []


def test_each_expert_that_differs_is_named() -> None:
    received = random_experts()
    served = Served(received)
    fused = [name(1, "gate_proj"), name(1, "up_proj")]  # one parameter, hence both
    for wrong, named in ((fused[0], fused), (fused[1], fused), (name(1, "down_proj"), [name(1, "down_proj")])):
        changed = received | {wrong: received[wrong] + 1e-6 * torch.ones_like(received[wrong])}
        assert differing_weights(served, changed) == named


def test_an_expert_without_one_of_its_projections_is_named() -> None:
    received = random_experts()
    served = Served(received)
    del received[name(2, "up_proj")]
    assert differing_weights(served, received) == [name(2, "down_proj"), name(2, "gate_proj")]


def test_an_expert_that_is_served_nowhere_is_named() -> None:
    received = random_experts()
    assert differing_weights(Served(received), received | {"other.experts.0.gate_proj.weight": torch.ones(2)}) == [
        "other.experts.0.gate_proj.weight"
    ]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"up": nn.Linear(4, 6), "down": nn.Linear(6, 4)})


def received(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_weights_that_differ_and_weights_that_are_not_served_are_named(model: nn.Module) -> None:
    staged = received(model)
    assert differing_weights(model, staged) == []
    staged["up.weight"][0, 0] += 1
    staged["gone.weight"] = torch.ones(1)
    assert differing_weights(model, staged) == ["gone.weight", "up.weight"]


def test_served_weights_are_compared_where_they_are(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU 15 GB of served weights stay there; a copy to the host and one CPU thread took about 10 s per sync."""

    def copied(*args: object, **kwargs: object) -> torch.Tensor:
        pytest.fail("weights were copied to the host")

    staged = received(model)
    monkeypatch.setattr(torch.Tensor, "cpu", copied)
    assert differing_weights(model, staged) == []
