"""Served weights against received ones, for modules shaped as vLLM's."""

from __future__ import annotations

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
