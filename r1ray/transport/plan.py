"""The common plan of both ends of a weight transfer: order of the tensors, buckets, and digest of the bytes."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor in the naming and shape of the Hugging Face checkpoint."""

    name: str
    dtype: str  # torch's name without "torch.": "float32", "bfloat16"
    shape: tuple[int, ...]

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch's type."""
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype), self.dtype
        return dtype

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * int(self.torch_dtype.itemsize)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Consecutive tensors that travel in one message."""

    specs: tuple[TensorSpec, ...]
    nbytes: int

    @property
    def item(self) -> int:
        """Bytes of one value; the tensors of a bucket have one dtype."""
        return int(self.specs[0].torch_dtype.itemsize)


def spec_of(name: str, tensor: torch.Tensor) -> TensorSpec:
    """The spec of a tensor."""
    return TensorSpec(name=name, dtype=str(tensor.dtype).removeprefix("torch."), shape=tuple(tensor.shape))


def bucket_plan(specs: Sequence[TensorSpec], limit: int) -> list[Bucket]:
    """Cut `specs` into buckets of at least `limit` bytes (the last may be smaller); the same on every process.

    Example: sizes 3, 4, 5 bytes and limit 6 give [3, 4] and [5]. Every tensor starts at a multiple of its item size
    because a bucket holds one dtype only.
    """
    plan: list[Bucket] = []
    current: list[TensorSpec] = []
    size = 0
    for spec in specs:
        if current and current[0].dtype != spec.dtype:
            plan.append(Bucket(specs=tuple(current), nbytes=size))
            current, size = [], 0
        current.append(spec)
        size += spec.nbytes
        if size >= limit:
            plan.append(Bucket(specs=tuple(current), nbytes=size))
            current, size = [], 0
    if current:
        plan.append(Bucket(specs=tuple(current), nbytes=size))
    return plan


def unpack(bucket: Bucket, buffer: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Views of `buffer` (uint8 [nbytes]) as the bucket's tensors."""
    parts = buffer.split([s.nbytes for s in bucket.specs])
    for spec, part in zip(bucket.specs, parts, strict=True):
        yield spec.name, part.view(spec.torch_dtype).view(spec.shape)


def pack_into(buffer: torch.Tensor, tensors: Iterable[torch.Tensor]) -> None:
    """Copy `tensors` one after the other into `buffer` (uint8 [sum of their bytes])."""
    offset = 0
    for tensor in tensors:
        flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
        buffer[offset : offset + flat.numel()].copy_(flat)
        offset += flat.numel()
    assert offset == buffer.numel(), f"{offset} bytes packed into a bucket of {buffer.numel()}"


class Digest:
    """A digest of the bytes of all buckets in order.

    Per bucket two sums modulo 2**64 over its 8-byte words x_i: of x_i, and of i * x_i (the idea of Fletcher's
    checksum). They run at memory speed on any device; the sums of all buckets are hashed together. This guards against
    corruption and mix-ups, not against an adversary.
    """

    _ROW = 4096

    def __init__(self) -> None:
        self._sums: list[int] = []

    def update(self, buffer: torch.Tensor) -> None:
        """Add one bucket, uint8 [nbytes]."""
        whole = buffer.numel() // (8 * self._ROW) * (8 * self._ROW)
        words = buffer[:whole].view(torch.int64).view(-1, self._ROW)
        # sum of i * x_i for i = row * _ROW + column, from the sums of rows and columns: no array of indices is needed.
        rows, columns = words.sum(1), words.sum(0)
        weighted = (rows * self._index(rows)).sum() * self._ROW + (columns * self._index(columns)).sum()
        self._sums += [buffer.numel(), int(rows.sum()), int(weighted)]
        self._sums += [zlib.crc32(buffer[whole:].cpu().numpy().tobytes())]  # the rest, less than one row

    @staticmethod
    def _index(sums: torch.Tensor) -> torch.Tensor:
        return torch.arange(sums.numel(), device=sums.device, dtype=torch.int64)

    def hexdigest(self) -> str:
        """The digest of all buckets so far, 32 hexadecimal digits."""
        return hashlib.sha256(",".join(map(str, self._sums)).encode()).hexdigest()[:32]
