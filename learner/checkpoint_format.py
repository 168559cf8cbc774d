"""Weights under the names and shapes of a model's Hugging Face checkpoint.

transformers fuses some tensors when it loads a model: the experts of a layer become one parameter. vLLM's loaders and
other programs know only the tensors of the checkpoint, so a sync and an export convert back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from r1ray.errors import ConfigError


class CheckpointFormat:
    """Converts the tensors of `hf`, a transformers model, one at a time."""

    def __init__(self, hf: Any, shapes: Mapping[str, tuple[int, ...]] | None = None) -> None:
        """`shapes`: names and shapes of the tensors, if they are not those of `hf`'s parameters and persistent buffers.

        Raises ConfigError if a tensor of the checkpoint is made of several tensors of the model.
        """
        self._hf = hf
        if shapes is None:
            shapes = {name: tuple(tensor.shape) for name, tensor in [*hf.named_parameters(), *persistent_buffers(hf)]}
        empty = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        alone = {name: self._revert({name: tensor}) for name, tensor in empty.items()}
        together = self._revert(empty)
        parts = {name: tuple(part.shape) for revert in alone.values() for name, part in revert.items()}
        expected = {name: tuple(part.shape) for name, part in together.items()}
        if parts != expected:
            joined = sorted(expected.items() ^ parts.items())
            raise ConfigError(
                f"model {hf.config.model_type}: its checkpoint's tensor {joined[0][0]} is made of several of the "
                "model's "
                "parameters, which r1ray cannot send to rollout workers"
            )
        self._converted = {name for name, revert in alone.items() if list(revert) != [name]}

    def converts(self, name: str) -> bool:
        """Whether the checkpoint has the model's tensor `name` as others."""
        return name in self._converted

    def tensors(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """(checkpoint name, tensor) of the model's tensor `name`, as views where possible."""
        if name in self._converted:
            yield from self._revert({name: tensor}).items()
        else:
            yield name, tensor

    def _revert(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        from transformers.core_model_loading import revert_weight_conversion

        reverted: dict[str, Tensor] = revert_weight_conversion(self._hf, tensors)
        return reverted


def persistent_buffers(module: Any) -> Iterator[tuple[str, Tensor]]:
    """(name, buffer) of the buffers that a checkpoint holds, such as the bias by which DeepSeek-V3 chooses experts."""
    for prefix, child in module.named_modules():
        for leaf, buffer in child.named_buffers(recurse=False):
            if leaf not in child._non_persistent_buffers_set:
                yield f"{prefix}.{leaf}" if prefix else leaf, buffer
