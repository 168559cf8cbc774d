"""Host memory for weights. The kernel takes about as long to hand it out as a broadcast on one host takes to fill it."""

from __future__ import annotations

import mmap
import weakref

import torch

_LARGE = 8 << 20
"""Bytes from which memory comes in large pages."""


def host_memory(nbytes: int) -> torch.Tensor:
    """New memory, uint8 [nbytes]."""
    return _tensor(memoryview(_mapped(nbytes))) if nbytes else torch.empty(0, dtype=torch.uint8)


class KeptMemory:
    """Lends memory as tensors, and lends it again once no tensor uses it."""

    def __init__(self) -> None:
        self._maps: dict[int, list[tuple[mmap.mmap, weakref.ref[memoryview]]]] = {}  # with the latest loan, by size

    def lend(self, nbytes: int) -> torch.Tensor:
        """Memory that no other tensor uses, uint8 [nbytes], with any content."""
        if not nbytes:
            return torch.empty(0, dtype=torch.uint8)
        of_size = self._maps.setdefault(nbytes, [])
        free = next((i for i, (_, loan) in enumerate(of_size) if loan() is None), None)
        memory = _mapped(nbytes) if free is None else of_size.pop(free)[0]
        view = memoryview(memory)
        of_size.append((memory, weakref.ref(view)))
        return _tensor(view)


def _mapped(nbytes: int) -> mmap.mmap:
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if nbytes >= _LARGE:
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _tensor(view: memoryview) -> torch.Tensor:
    """The storage of the tensor, and of every view of it, keeps `view` alive."""
    return torch.frombuffer(view, dtype=torch.uint8)
