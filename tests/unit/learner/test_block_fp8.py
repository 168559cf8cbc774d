"""Bases in fp8 with block scales: read as the values that they stand for, exported without quantization."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from learner.block_fp8 import dequantize
from learner.checkpoint_format import CheckpointFormat, persistent_buffers
from learner.export import export_model
from r1ray.errors import ConfigError
from r1ray.models.folder import read_shape
from tests.block_fp8 import quantized, write_block_fp8
from tests.unit.learner.test_model_folder import read, rewrite, write


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (7, 10), (3, 2), (16, 4)])
def test_every_value_is_multiplied_by_the_scale_of_its_block(rows: int, columns: int) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1))
    stored, scales, values = quantized(weight, (4, 3))
    assert torch.equal(dequantize(stored, scales, (4, 3)), values)
    assert (values - weight).abs().max() < weight.abs().max() / 16


def checkpoint(model: object) -> dict[str, Tensor]:
    """The tensors of a model under the names of its checkpoint."""
    own = [*model.named_parameters(), *persistent_buffers(model)]  # type: ignore[attr-defined]
    return dict(part for name, tensor in own for part in CheckpointFormat(model).tensors(name, tensor.detach()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["tied", "experts", "routing bias"])
def test_a_base_in_fp8_is_read_and_exported_as_what_it_stands_for(
    tmp_path: Path, kind: str, dtype: torch.dtype
) -> None:
    expected = write_block_fp8(write(tmp_path / "plain", kind), tmp_path / "fp8", (8, 16))
    model = read(tmp_path / "fp8", str(dtype).removeprefix("torch."))
    assert not hasattr(model.config, "quantization_config")
    found = checkpoint(model)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name].to(tensor.dtype)), name

    export_model(iter(found.items()), source=tmp_path / "fp8", target=tmp_path / "out", writer=True)
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    again = read(tmp_path / "out", str(dtype).removeprefix("torch."))
    assert all(torch.equal(tensor, found[name]) for name, tensor in checkpoint(again).items())


def test_the_sizes_are_those_of_the_unquantized_model(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", "experts")
    write_block_fp8(plain, tmp_path / "fp8", (8, 16))
    shape = read_shape(tmp_path / "fp8")
    assert (shape.parameters, shape.quantized, shape.block_fp8) == (read_shape(plain).parameters, "", True)


@pytest.mark.parametrize("change", ["missing", "shape"])
def test_a_weight_without_the_scales_of_all_its_blocks_is_refused(tmp_path: Path, change: str) -> None:
    write_block_fp8(write(tmp_path / "plain", "untied"), tmp_path / "fp8", (8, 16))
    name = "model.layers.0.mlp.up_proj.weight"

    def spoil(stored: dict[str, Tensor]) -> None:
        scales = stored.pop(f"{name}_scale_inv")
        if change == "shape":
            stored[f"{name}_scale_inv"] = scales[:-1].clone()

    rewrite(tmp_path / "fp8", spoil)
    got = "none" if change == "missing" else r"\[5, 2\]"
    with pytest.raises(ConfigError, match=rf"{name} is stored in fp8 \[48, 32\].* of shape \[6, 2\], got {got}"):
        read(tmp_path / "fp8")


def test_other_quantizations_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "plain", "untied")
    config = json.loads((folder / "config.json").read_text())
    for scheme in ({"quant_method": "gptq", "bits": 4}, {"quant_method": "fp8"}):
        (folder / "config.json").write_text(json.dumps({**config, "quantization_config": scheme}))
        with pytest.raises(
            ConfigError, match=f"quantized by {scheme['quant_method']}, expected unquantized ones or fp8"
        ):
            read(folder)
