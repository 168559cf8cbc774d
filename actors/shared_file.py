"""A file in shared memory with the weights of one transfer: written by one process of a host, read by all."""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import torch

from actors.shm_cleanup import STAGED
from r1ray.errors import WeightSyncError
from r1ray.transport.plan import Bucket, unpack

_ALIGNED = mmap.PAGESIZE
"""Offsets of blocks in a file are multiples of this."""
_LIBC = ctypes.CDLL(None)
_MADV_POPULATE_WRITE = 23


class SharedFile:
    """A file with room for all blocks."""

    def __init__(self, blocks: Sequence[Bucket], folder: Path) -> None:
        """Raises WeightSyncError if there is no room for the file."""
        self.blocks, self._offsets = blocks, _offsets(blocks)
        self._reserved: set[int] = set()
        self._lock = threading.Lock()  # no number of a closed file reaches the system, which may have given it away
        try:
            fd, name = tempfile.mkstemp(prefix=STAGED, dir=folder)
        except OSError as e:
            raise WeightSyncError(f"cannot stage weights in {folder}: {e.strerror}") from e
        self._fd: int | None = fd
        self.path = Path(name)
        os.ftruncate(fd, self._offsets[-1])
        self._memory = torch.from_file(name, shared=True, size=self._offsets[-1], dtype=torch.uint8)

    def block(self, number: int) -> torch.Tensor:
        """Memory of a block. Reserved first: a write beyond what shared memory has left would kill the process.

        Raises WeightSyncError. Block by block, because the kernel clears what it reserves.
        """
        start, nbytes = self._offsets[number], self.blocks[number].nbytes
        try:
            with self._lock:
                if self._fd is None:
                    raise WeightSyncError(f"the transfer into {self.path} has ended")
                if nbytes and number not in self._reserved:
                    os.posix_fallocate(self._fd, start, nbytes)
                    self._map_pages(start, nbytes)
                self._reserved.add(number)
        except OSError as e:
            whole = self._offsets[-1] / 2**30
            raise WeightSyncError(
                f"cannot stage {whole:.2f} GiB of weights in {self.path}: {e.strerror}; give this host a larger shared "
                f"memory ({self.path.parent}): it holds one copy of the weights, and of those before until they are "
                "replaced"
            ) from e
        return self._memory[start : start + nbytes]

    def _map_pages(self, start: int, nbytes: int) -> None:
        """Map a block at once: a fault for each of its pages takes longer. Without effect before Linux 5.14."""
        address = ctypes.c_void_p(self._memory.data_ptr() + start)
        _LIBC.madvise(address, ctypes.c_size_t(nbytes), _MADV_POPULATE_WRITE)

    def mapping(self) -> PrivateMapping:
        """A new mapping of all blocks. Raises WeightSyncError."""
        with self._lock:
            if self._fd is None:
                raise WeightSyncError(f"the transfer into {self.path} has ended")
            return PrivateMapping(self.blocks, self._fd)

    def unlink(self) -> None:
        """Remove the name; the file stays as long as it is open somewhere."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Give the file up. What is mapped stays."""
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
            self._fd = None
        self.unlink()


class PrivateMapping:
    """All tensors of a file as this process sees them."""

    def __init__(self, blocks: Sequence[Bucket], fd: int) -> None:
        """Raises WeightSyncError if there is no memory to map it."""
        self._blocks, self._offsets = blocks, _offsets(blocks)
        try:
            view = memoryview(mmap.mmap(fd, self._offsets[-1], flags=mmap.MAP_PRIVATE))
        except OSError as e:
            raise WeightSyncError(f"cannot map the staged weights of this host: {e.strerror}") from e
        self._memory = torch.frombuffer(view, dtype=torch.uint8)
        self.view = weakref.ref(view)  # dead once neither this object nor any tensor uses the memory

    def tensors(self) -> dict[str, torch.Tensor]:
        """Views by name."""
        found: dict[str, torch.Tensor] = {}
        for block, start in zip(self._blocks, self._offsets[:-1], strict=True):
            found.update(unpack(block, self._memory[start : start + block.nbytes]))
        return found


def _offsets(blocks: Sequence[Bucket]) -> list[int]:
    """Of the blocks in a file, and the size of the file, at least 1."""
    offsets = [0]
    for block in blocks:
        offsets.append(offsets[-1] + -(-block.nbytes // _ALIGNED) * _ALIGNED)
    return [*offsets[:-1], max(1, offsets[-1])]
