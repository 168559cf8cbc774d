"""Weights in fp8 with a scale for each block, as DeepSeek-V3 is published, read as the values that they stand for.

A matrix W [N, K] is stored as float8_e4m3fn beside `weight_scale_inv` [ceil(N / n), ceil(K / k)], float32, for blocks
of n x k values: W = stored x scale of its block (DeepSeek-V3 technical report, arXiv 2412.19437, section 3.3.2; the
rule of its own converter to bfloat16). One tensor is dequantised when it is read, so no process ever holds more than
that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from r1ray.errors import ConfigError
from r1ray.models.folder import SCALE, scale_blocks


class Dequantized:
    """A stored tensor with its scales, in the place of the slice of a file that transformers reads."""

    def __init__(self, stored: Any, scales: Any, blocks: tuple[int, int]) -> None:
        self._stored, self._scales, self._blocks = stored, scales, blocks

    def __getitem__(self, index: Any) -> Tensor:
        return dequantize(self._stored[...], self._scales[...], self._blocks)[index]

    def get_shape(self) -> list[int]:
        """Shape of the values."""
        shape: list[int] = self._stored.get_shape()
        return shape

    def get_dtype(self) -> str:
        """Type of the values, as safetensors names it."""
        return "F32"


def dequantize(stored: Tensor, scales: Tensor, blocks: tuple[int, int]) -> Tensor:
    """float32 [N, K]: each value times the scale of its block; the last blocks may be smaller."""
    rows, columns = stored.shape
    n, k = blocks
    spread = scales.float().repeat_interleave(n, 0)[:rows].repeat_interleave(k, 1)[:, :columns]
    return stored.float().mul_(spread)


def dequantized(slices: Mapping[str, Any], folder: Path, quantization: Mapping[str, Any] | None) -> dict[str, Any]:
    """The tensors of a folder under their names, without scales: `slices` itself if config.json names no quantization.

    Raises ConfigError if a tensor in fp8 has no scales, or scales of another shape.
    """
    blocks = scale_blocks(quantization)
    if blocks is None:
        return dict(slices)
    found: dict[str, Any] = {}
    for name, stored in slices.items():
        if name.endswith(SCALE):
            continue
        if not str(stored.get_dtype()).startswith("F8"):
            found[name] = stored
            continue
        scales = slices.get(f"{name}{SCALE}")
        expected = [-(-size // block) for size, block in zip(stored.get_shape(), blocks, strict=True)]
        if scales is None or scales.get_shape() != expected:
            shape = "none" if scales is None else scales.get_shape()
            raise ConfigError(
                f"model.path = {folder}: {name} is stored in fp8 {stored.get_shape()}, expected scales {name}{SCALE} "
                "of "
                f"shape {expected}, got {shape}: complete the download, or correct weight_block_size in config.json"
            )
        found[name] = Dequantized(stored, scales, blocks)
    return found


def without_quantization(config: Any) -> None:
    """Make `config`, of transformers, that of a model of unquantized weights.

    Raises ConfigError for other quantizations.
    """
    quantization = getattr(config, "quantization_config", None)
    if quantization is None:
        return
    raw = quantization if isinstance(quantization, dict) else quantization.to_dict()
    if scale_blocks(raw) is None:
        raise ConfigError(
            f"model.path has weights quantized by {raw.get('quant_method')}, expected unquantized ones or fp8 with "
            "weight_block_size: convert them to bfloat16 first"
        )
    del config.quantization_config
