"""Low-rank adapters (LoRA, Hu et al. 2021): trained beside linear layers whose weights stay as they are.

    y = x W' + b + (alpha / rank) (x A') B'        trained: A [rank, inputs], B [outputs, rank]; merged: W + (alpha / rank) B A

An adapted layer keeps the names of its weight and bias, so loading, ZeRO and syncs treat it like any other; only its
adapter is a new parameter. Files are in the format of the PEFT library, which is not needed.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learner.model_folder import Fresh
from r1ray.config.schema import LoraConfig
from r1ray.errors import ConfigError, IntegrityError
from r1ray.models.folder import ends_with

ADAPTER = "adapter"
"""Folder of the adapter inside an exported model."""

ADAPTER_PARTS = ("lora_A", "lora_B")
"""Names of the parameters of an adapter."""


class LoraLinear(nn.Linear):
    """A linear layer with an adapter; `weight` and `bias` are frozen."""

    def __init__(self, linear: nn.Linear, *, rank: int, scale: float) -> None:
        """Takes over the parameters of `linear`; the adapter is on `meta`."""
        inputs, outputs, dtype = linear.in_features, linear.out_features, linear.weight.dtype
        super().__init__(inputs, outputs, bias=linear.bias is not None, device="meta", dtype=dtype)
        self.weight, self.bias = linear.weight, linear.bias
        self.lora_A = nn.Parameter(torch.empty(rank, inputs, device="meta", dtype=dtype))
        self.lora_B = nn.Parameter(torch.empty(outputs, rank, device="meta", dtype=dtype))
        self.scale, self.adapter_on = scale, True

    def forward(self, input: Tensor) -> Tensor:
        """Without the adapter's part while it is off."""
        y = F.linear(input, self.weight, self.bias)
        if not self.adapter_on:
            return y
        return y + F.linear(F.linear(input, self.lora_A), self.lora_B) * self.scale

    @property
    def adapter(self) -> list[nn.Parameter]:
        """Its parameters, in the order of ADAPTER_PARTS."""
        return [self.lora_A, self.lora_B]

    def merged(self) -> Tensor:
        """The weight of a plain linear layer that computes the same, up to rounding.

        All parameters must be complete.
        """
        a, b = (parameter.detach() for parameter in self.adapter)
        return torch.addmm(self.weight.detach(), b, a, alpha=self.scale)


def add_adapters(hf: Any, lora: LoraConfig) -> None:
    """Freeze the parameters of `hf` and give the targets adapters, which have no values yet.

    Raises ConfigError for a target that is not the name of linear layers.
    """
    assert lora.rank is not None
    hf.requires_grad_(False)
    found: set[str] = set()
    for name, module in list(hf.named_modules()):
        targets = {target for target in lora.targets if ends_with(name, target)}
        if not targets:
            continue
        if type(module) is not nn.Linear or module is hf.get_output_embeddings():
            raise ConfigError(
                f"model.lora.targets: {', '.join(sorted(targets))} is {name} of the model, which is not a linear layer "
                "of "
                "its blocks: name such layers only"
            )
        found |= targets
        owner, _, leaf = name.rpartition(".")
        setattr(hf.get_submodule(owner), leaf, LoraLinear(module, rank=lora.rank, scale=lora.alpha / lora.rank))
    if missing := [target for target in lora.targets if target not in found]:
        raise ConfigError(f"model.lora.targets: no linear layer of the model is named {', '.join(missing)}")


def adapted(module: nn.Module) -> dict[str, LoraLinear]:
    """Name -> layer with an adapter, in the order of the module."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, LoraLinear)}


def new_adapters(hf: nn.Module, seed: int) -> Fresh:
    """What gives adapters their first values: A random, B zero, so that training starts from the base model."""
    generator = torch.Generator().manual_seed(seed)

    def randomise(a: Tensor) -> None:
        bound = 1 / math.sqrt(a.shape[1])
        a.uniform_(-bound, bound, generator=generator)

    fill = dict(zip(ADAPTER_PARTS, (randomise, Tensor.zero_), strict=True))
    return {f"{name}.{part}": fill[part] for name in adapted(hf) for part in ADAPTER_PARTS}


@contextlib.contextmanager
def adapters_off(module: nn.Module) -> Iterator[None]:
    """Within this context the module computes what its base model would."""
    layers = adapted(module).values()
    for layer in layers:
        layer.adapter_on = False
    try:
        yield
    finally:
        for layer in layers:
            layer.adapter_on = True


# -- files in PEFT's format
# ---------------------------------------------------------------------------------------------


def write_adapter(folder: Path, tensors: Mapping[str, Tensor], lora: LoraConfig, base: str) -> None:
    """Write adapters as PEFT would. `tensors`: by their names in the model, e.g. model.layers.0.mlp.up_proj.lora_A.

    `base`: the folder of the base model, for the reader.
    """
    from safetensors.torch import save_file

    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": list(lora.targets),
        "bias": "none",
        "inference_mode": True,
    }
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
    named = {f"base_model.model.{name}.weight": tensor for name, tensor in tensors.items()}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def merge_stored(
    base: Iterator[tuple[str, Tensor]], adapters: Mapping[str, Tensor], lora: Mapping[str, Any]
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a base model's folder with the adapters of a checkpoint; merged ones are float32.

    `lora`: the run's `model.lora`. Raises IntegrityError if the base has no weight for an adapter.
    """
    scale = lora["alpha"] / lora["rank"]
    waiting = {name.rpartition(".")[0] for name in adapters}
    for name, tensor in base:
        layer = name.removesuffix(".weight")
        if layer in waiting:
            waiting.remove(layer)
            a, b = (adapters[f"{layer}.{part}"].float() for part in ADAPTER_PARTS)
            tensor = torch.addmm(tensor.float(), b, a, alpha=scale)
        yield name, tensor
    if waiting:
        raise IntegrityError(f"the base model has no weight {min(waiting)}, for which the checkpoint has an adapter")
