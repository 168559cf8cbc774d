"""A model folder rewritten as DeepSeek-V3 is published: projections in fp8 with a scale for each block."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

LARGEST = 448.0
"""Of float8_e4m3fn."""


def write_block_fp8(source: Path, target: Path, blocks: tuple[int, int] = (128, 128)) -> dict[str, Tensor]:
    """Write `target` from the folder `source`; returns the values that its weights stand for, in float32."""
    shutil.copytree(source, target)
    stored: dict[str, Tensor] = {}
    expected: dict[str, Tensor] = {}
    for name, weight in load_file(target / "model.safetensors").items():
        stored[name] = expected[name] = weight
        if "proj" in name and name.endswith(".weight"):
            stored[name], stored[f"{name}_scale_inv"], expected[name] = quantized(weight.float(), blocks)
    save_file(stored, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    scheme = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": list(blocks)}
    (target / "config.json").write_text(json.dumps({**config, "quantization_config": scheme}))
    return expected


def quantized(weight: Tensor, blocks: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """(values in fp8, scales, the values that both stand for), one block after the other."""
    (rows, columns), (n, k) = weight.shape, blocks
    stored = torch.empty(rows, columns, dtype=torch.float8_e4m3fn)
    scales, values = torch.empty(-(-rows // n), -(-columns // k)), torch.empty(rows, columns)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            block = slice(i * n, (i + 1) * n), slice(j * k, (j + 1) * k)
            scales[i, j] = weight[block].abs().max() / LARGEST
            stored[block] = (weight[block] / scales[i, j]).to(torch.float8_e4m3fn)
            values[block] = stored[block].float() * scales[i, j]
    return stored, scales, values
