"""Export a model as a folder in the Hugging Face format, which transformers and vLLM load directly."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from torch import Tensor

from learner.files import write_aside
from learner.shards import write_shards

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth")


def export_model(
    weights: Iterator[tuple[str, Tensor]],
    *,
    source: Path,
    target: Path,
    writer: bool,
    files: Mapping[str, str] | None = None,
    more: Callable[[Path], None] | None = None,
) -> None:
    """Write `weights` with the tokenizer and configuration of `source` to `target`, replacing an older export.

    Configuration and tokenizer files are copied byte by byte: saving a loaded tokenizer may change how it splits text.
    `files` (name -> text) are written in place of those of `source`; `more` writes further ones. A collective: ranks
    that are not the `writer` only take part in gathering. Raises DiskFull if there is no room.
    """
    try:
        if writer:
            _write(weights, source, target, files or {}, more)
    finally:  # the other ranks are in the same collectives until the end
        for _ in weights:
            pass


def _write(
    weights: Iterator[tuple[str, Tensor]],
    source: Path,
    target: Path,
    files: Mapping[str, str],
    more: Callable[[Path], None] | None,
) -> None:
    with write_aside(target) as folder:
        for path in source.iterdir():
            if path.is_file() and not any(path.match(pattern) for pattern in WEIGHTS):
                shutil.copyfile(path, folder / path.name)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        dtypes: Counter[str] = Counter()
        index = write_shards(folder, "model", _watched(weights, dtypes))
        index_file = {"metadata": {}, "weight_map": index}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index_file, indent=1))
        _set_type(folder / "config.json", dtypes)
        if more is not None:
            more(folder)


def _watched(weights: Iterator[tuple[str, Tensor]], dtypes: Counter[str]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in weights:
        dtypes[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
        yield name, tensor


def _set_type(path: Path, elements: Counter[str]) -> None:
    """Name the dtype of most elements: a buffer may be float32 in a model of bfloat16. No weight is quantized."""
    config = json.loads(path.read_text())
    config.pop("torch_dtype", None)  # the name of the key in older folders
    config.pop("quantization_config", None)
    config["dtype"] = max(elements, key=elements.__getitem__, default="float32")
    path.write_text(json.dumps(config, indent=2) + "\n")
