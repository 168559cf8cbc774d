"""Digest of the bytes of a weight transfer, the same at both ends.

It guards against corruption and mix-ups, not against an adversary. Both ends of a transport have their buckets in
memory of the same kind, so each kind has the digest that is fast there: XXH3 in host memory, sums on a device.
"""

from __future__ import annotations

import hashlib
import zlib

import torch
import xxhash

_ROW = 4096


class Digest:
    """A digest of all buckets in order, which are all in host memory or all on a device."""

    def __init__(self) -> None:
        self._host = xxhash.xxh3_128()
        self._sums: list[int] = []

    def update(self, buffer: torch.Tensor) -> None:
        """Add one bucket, uint8 [nbytes]."""
        if buffer.device.type == "cpu":
            self._host.update(buffer.numpy())
        else:
            self._sums += sums(buffer)

    def hexdigest(self) -> str:
        """The digest of all buckets so far, 32 hexadecimal digits."""
        if not self._sums:
            return self._host.hexdigest()
        return hashlib.sha256(",".join(map(str, self._sums)).encode()).hexdigest()[:32]


def sums(buffer: torch.Tensor) -> list[int]:
    """Two sums modulo 2**64 over the 8-byte words x_i of a buffer, uint8 [nbytes], on its own device.

    Of x_i, and of i * x_i (the idea of Fletcher's checksum), with the size and a checksum of the rest.
    """
    whole = buffer.numel() // (8 * _ROW) * (8 * _ROW)
    words = buffer[:whole].view(torch.int64).view(-1, _ROW)
    # sum of i * x_i for i = row * _ROW + column, from the sums of rows and columns: no array of indices is needed.
    rows, columns = words.sum(1), words.sum(0)
    weighted = (rows * _index(rows)).sum() * _ROW + (columns * _index(columns)).sum()
    rest = zlib.crc32(buffer[whole:].cpu().numpy().tobytes())  # less than one row
    return [buffer.numel(), int(rows.sum()), int(weighted), rest]


def _index(of: torch.Tensor) -> torch.Tensor:
    return torch.arange(of.numel(), device=of.device, dtype=torch.int64)
