"""Read back the weights that vLLM serves and compare them with what was received.

vLLM fuses projections (q, k and v into one) and, on CPU, packs every linear layer into an opaque oneDNN kernel and
frees the original. A packed layer is read by multiplying unit vectors: W e_j is column j exactly, since every other
product is zero.
"""

from __future__ import annotations

import re

import torch
from torch import nn

EXPERT = re.compile(r"(?P<expert>\d+)\.(?P<projection>\w+)\.weight")
"""Name of an expert's tensor in a checkpoint, below its layer's experts."""
EXPERT_KINDS = {"gate_proj": "gate", "up_proj": "up", "down_proj": "down", "w1": "gate", "w3": "up", "w2": "down"}
"""Projection of an expert's tensor, by its name; Mixtral numbers them."""
PROBED_COLUMNS = 64
"""Columns read from a packed kernel, evenly spread: all of a small layer, a sample of a large one."""


def differing_weights(model: nn.Module, received: dict[str, torch.Tensor]) -> list[str]:
    """Names of `received` (checkpoint names) tensors whose served form is not bit-equal. Without tensor parallelism."""
    packed: dict[str, list[str]] = getattr(model, "packed_modules_mapping", {})
    unseen = set(received)
    differing: set[str] = set()
    for module_name, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            names = _checkpoint_names(f"{module_name}.{leaf}", leaf, packed, received)
            if not names:
                continue
            if not _equal(module, leaf, parameter, [received[n] for n in names]):
                differing.update(names)
            unseen.difference_update(names)
    differing |= _differing_experts(model, received, unseen)
    return sorted(differing | unseen)


def _checkpoint_names(
    name: str, leaf: str, packed: dict[str, list[str]], received: dict[str, torch.Tensor]
) -> list[str]:
    """The checkpoint tensors that make up the served parameter `name`; none for a parameter that only vLLM has."""
    prefix, _, module = name.removesuffix(f".{leaf}").rpartition(".")
    if module in packed:
        names = [f"{prefix}.{part}.{leaf}" for part in packed[module]]
        return [n for n in names if n in received]
    if name in received:
        return [name]
    if name == "lm_head.weight" and "model.embed_tokens.weight" in received:
        return ["model.embed_tokens.weight"]  # tied
    return []


def _equal(module: nn.Module, leaf: str, parameter: nn.Parameter, expected: list[torch.Tensor]) -> bool:
    whole = torch.cat(expected) if len(expected) > 1 else expected[0]
    if leaf == "weight" and hasattr(module, "cpu_linear") and whole.dim() == 2:
        columns = _columns(whole.shape[1])
        unit = torch.zeros(len(columns), whole.shape[1], dtype=whole.dtype)
        unit[torch.arange(len(columns)), columns] = 1
        served = module.cpu_linear(unit, parameter, None).t()
        return bool(torch.equal(served[: whole.shape[0]].contiguous(), whole[:, columns]))
    served = parameter.detach()[: whole.shape[0]]  # vLLM pads the vocabulary
    return bool(torch.equal(served, whole.to(served.device)))  # there: one CPU thread takes seconds for a large model


def _differing_experts(model: nn.Module, received: dict[str, torch.Tensor], unseen: set[str]) -> set[str]:
    """Names of experts' tensors whose served form differs; removes all of them that are served from `unseen`.

    vLLM holds the experts of a layer in two parameters: [E, 2 I, H] of the gate and up projections, and [E, H, I] of
    the down projections. Its CPU kernels pack both; the expected ones are packed by the same kernel.
    """
    differing: set[str] = set()
    for module_name, module in model.named_modules():
        if not hasattr(module, "w13_weight"):
            continue
        prefix = module_name.removesuffix(".routed_experts") + "."
        of_expert = _experts_below(prefix, unseen)
        unseen.difference_update(name for names in of_expert.values() for name in names.values())
        for expert, names in of_expert.items():
            gate, up, down = (received[names[kind]] for kind in ("gate", "up", "down"))
            w13, w2 = _as_served(module, torch.cat([gate, up])[None], down[None])
            if not torch.equal(module.w13_weight.detach()[expert].cpu(), w13[0].cpu()):
                differing |= {names["gate"], names["up"]}
            if not torch.equal(module.w2_weight.detach()[expert].cpu(), w2[0].cpu()):
                differing.add(names["down"])
    return differing


def _experts_below(prefix: str, names: set[str]) -> dict[int, dict[str, str]]:
    """Tensor name by kind of projection, by expert; experts that lack a projection are left out."""
    found: dict[int, dict[str, str]] = {}
    for name in names:
        match = EXPERT.fullmatch(name.removeprefix(prefix)) if name.startswith(prefix) else None
        if match and match["projection"] in EXPERT_KINDS:
            found.setdefault(int(match["expert"]), {})[EXPERT_KINDS[match["projection"]]] = name
    return {expert: kinds for expert, kinds in found.items() if len(kinds) == 3}


def _as_served(module: nn.Module, w13: torch.Tensor, w2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    kernel = getattr(getattr(module, "quant_method", None), "moe_kernel", None)
    if kernel is None or not w13.device.type == module.w13_weight.device.type == "cpu":
        return w13, w2
    packed = nn.Module()
    packed.w13_weight, packed.w2_weight = nn.Parameter(w13.clone()), nn.Parameter(w2.clone())
    packed.activation, packed.moe_config = module.activation, module.moe_config
    kernel.fused_experts.process_weights_after_loading(packed)
    return packed.w13_weight.detach(), packed.w2_weight.detach()


def _columns(width: int) -> torch.Tensor:
    if width <= PROBED_COLUMNS:
        return torch.arange(width)
    return torch.linspace(0, width - 1, PROBED_COLUMNS).round().long()
