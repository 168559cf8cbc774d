"""Named tensors to safetensors files of bounded size, one file in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

SHARD_BYTES = 4 * 2**30
"""Size at which a new file starts: Hugging Face tools expect files of a few GB."""


def write_shards(folder: Path, stem: str, tensors: Iterator[tuple[str, Tensor]]) -> dict[str, str]:
    """Write tensors, in their order, to `<stem>-00001.safetensors`, ...; returns the file of each tensor, by name."""
    from safetensors.torch import save_file

    index: dict[str, str] = {}
    shard: dict[str, Tensor] = {}
    size = files = 0

    def flush() -> None:
        nonlocal shard, size, files
        files += 1
        name = f"{stem}-{files:05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        index.update(dict.fromkeys(shard, name))
        shard, size = {}, 0

    for name, tensor in tensors:
        if shard and size + tensor.nbytes > SHARD_BYTES:
            flush()
        shard[name] = tensor.detach().to(device="cpu", copy=True).contiguous()
        size += tensor.nbytes
    if shard:
        flush()
    return index
