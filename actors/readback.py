"""Read back the weights that vLLM serves and compare them with what was received.

vLLM fuses projections (q, k and v into one) and, on CPU, packs every linear layer into an opaque oneDNN kernel and
frees the original. A packed layer is read by multiplying unit vectors: W e_j is column j exactly, since every other
product is zero.
"""

from __future__ import annotations

import torch
from torch import nn

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
            expected = [received[n] for n in names]
            if not _equal(module, leaf, parameter, expected):
                differing.update(names)
            unseen.difference_update(names)
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
    return bool(torch.equal(served.cpu(), whole.cpu()))


def _columns(width: int) -> torch.Tensor:
    if width <= PROBED_COLUMNS:
        return torch.arange(width)
    return torch.linspace(0, width - 1, PROBED_COLUMNS).round().long()
