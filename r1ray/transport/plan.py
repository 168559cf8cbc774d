"""The common plan of both ends of a weight transfer: order of the tensors, and buckets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from r1ray.errors import WeightSyncError
from r1ray.transport.transfer import Share, TransferSpecs, WeightLayout

ALONE = 4 << 20
"""Bytes from which a tensor, or what one sender sends of it, is a bucket of its own."""


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
class Piece:
    """Consecutive values of a flattened tensor."""

    spec: TensorSpec
    start: int
    count: int

    @property
    def item(self) -> int:
        """Bytes of one value."""
        return int(self.spec.torch_dtype.itemsize)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.count * self.item


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Pieces that travel in one message, of one dtype."""

    pieces: tuple[Piece, ...]
    nbytes: int

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The tensors of the pieces."""
        return tuple(piece.spec for piece in self.pieces)

    @property
    def item(self) -> int:
        """Bytes of one value."""
        return self.pieces[0].item


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPlan:
    """How one set of weights travels, the same on every process."""

    blocks: list[Bucket]  # the whole weights, as a receiver keeps them
    streams: list[list[Bucket]]  # what each sender sends, in its order


def spec_of(name: str, tensor: torch.Tensor) -> TensorSpec:
    """The spec of a tensor."""
    return TensorSpec(name=name, dtype=str(tensor.dtype).removeprefix("torch."), shape=tuple(tensor.shape))


def as_specs(weights: TransferSpecs) -> list[TensorSpec]:
    """Specs as they travel, as a list of `TensorSpec`."""
    return [TensorSpec(name=n, dtype=d, shape=tuple(s)) for n, d, s in weights]


def bucket_plan(specs: Sequence[TensorSpec], limit: int) -> list[Bucket]:
    """Cut `specs` into buckets of at least `limit` bytes (the last may be smaller); the same on every process.

    Example: sizes 3, 4, 5 bytes and limit 6 give [3, 4] and [5]. Large tensors travel alone, so that they can be sent
    from where they are. Every tensor starts at a multiple of its item size
    because a bucket holds one dtype only.
    """
    return _buckets((Piece(spec=spec, start=0, count=math.prod(spec.shape)) for spec in specs), limit)


def stream_plan(specs: Sequence[TensorSpec], shares: Iterable[Share], limit: int) -> list[Bucket]:
    """Cut what one sender sends of `specs`, as `bucket_plan` does."""
    return _buckets((Piece(spec=specs[index], start=start, count=count) for index, start, count in shares), limit)


def one_sender(specs: Sequence[TensorSpec]) -> WeightLayout:
    """The layout if one rank sends everything."""
    weights = [(spec.name, spec.dtype, spec.shape) for spec in specs]
    return WeightLayout(weights=weights, shares=[[(i, 0, math.prod(spec.shape)) for i, spec in enumerate(specs)]])


def transfer_plan(layout: WeightLayout, limit: int) -> TransferPlan:
    """The plan of all ends. Raises WeightSyncError unless the senders have every value once."""
    specs, streams = as_specs(layout.weights), layout.shares
    found: list[list[tuple[int, int]]] = [[] for _ in specs]
    for index, start, count in (share for stream in streams for share in stream):
        found[index].append((start, start + count))
    for spec, ranges in zip(specs, found, strict=True):
        reached = 0
        for start, stop in sorted(ranges):
            reached = stop if start == reached else -1
        if reached != math.prod(spec.shape):
            raise WeightSyncError(f"{spec.name}: expected {math.prod(spec.shape)} values, the senders have {ranges}")
    return TransferPlan(blocks=bucket_plan(specs, limit), streams=[stream_plan(specs, s, limit) for s in streams])


def _buckets(pieces: Iterable[Piece], limit: int) -> list[Bucket]:
    plan: list[Bucket] = []
    current: list[Piece] = []
    size = 0

    def close() -> None:
        nonlocal current, size
        plan.append(Bucket(pieces=tuple(current), nbytes=size))
        current, size = [], 0

    for piece in pieces:
        alone = piece.nbytes >= ALONE
        if current and (alone or current[0].spec.dtype != piece.spec.dtype):
            close()
        current.append(piece)
        size += piece.nbytes
        if size >= limit or alone:
            close()
    if current:
        close()
    return plan


def unpack(bucket: Bucket, buffer: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Views of `buffer` (uint8 [nbytes]) as the tensors of a bucket that has them whole."""
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
