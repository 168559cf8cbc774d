"""Ranks without torch's process group, and an engine whose state is a few tensors: for tests of checkpoints."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from learner.parts import Part, whole

TIMEOUT_S = 60.0


class ThreadRanks:
    """One of several ranks that are threads of one process."""

    def __init__(self, rank: int, size: int, meeting: threading.Barrier, board: list[Any]) -> None:
        self.rank, self.size = rank, size
        self._meeting, self._board = meeting, board

    def gather(self, value: Any) -> list[Any]:
        return [json.loads(each) for each in self._exchange(json.dumps(value))]

    def broadcast(self, value: Any) -> Any:
        return self.gather(value)[0]

    def share(self, values: Tensor, source: int) -> Tensor:
        found: Tensor = self._exchange(values)[source]
        return found.clone()

    def _exchange(self, value: Any) -> list[Any]:
        self._board[self.rank] = value
        self._meeting.wait(TIMEOUT_S)
        found = list(self._board)
        self._meeting.wait(TIMEOUT_S)
        return found


def alone() -> ThreadRanks:
    """The only rank."""
    return ThreadRanks(0, 1, threading.Barrier(1), [None])


def on_ranks(size: int, work: Callable[[ThreadRanks], Any]) -> list[Any]:
    """What `work` returns, or the exception that it raises, on each of several ranks."""
    meeting, board = threading.Barrier(size), [None] * size
    found: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            found[rank] = work(ThreadRanks(rank, size, meeting, board))
        except Exception as e:
            found[rank] = e

    threads = [threading.Thread(target=run, args=(rank,), name=f"rank {rank}") for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert not any(thread.is_alive() for thread in threads), "the ranks wait for each other"
    return found


class FakeEngine:
    """State of the names and sizes in `shapes`: replicated, or each tensor divided over the ranks like ZeRO 3."""

    def __init__(self, rank: int, size: int, shapes: dict[str, tuple[int, ...]], *, sharded: bool) -> None:
        self.applied_steps, self._rank, self._size, self._sharded = 0, rank, size, sharded
        self.shapes = shapes
        self.values = {name: torch.zeros(self._span(shape)[1]) for name, shape in shapes.items()}

    def fill(self, seed: int) -> None:
        """The complete tensors of a seed, of which this rank keeps its own part."""
        for name, tensor in complete(self.shapes, seed).items():
            start, length = self._span(self.shapes[name])
            self.values[name].copy_(tensor.flatten()[start : start + length])
        self.applied_steps = seed

    def holds(self, seed: int) -> bool:
        """Whether this rank holds what `fill` gave."""
        other = FakeEngine(self._rank, self._size, self.shapes, sharded=self._sharded)
        other.fill(seed)
        same = all(torch.equal(self.values[name], other.values[name]) for name in self.shapes)
        return same and self.applied_steps == seed

    def parts(self) -> list[Part]:
        return [self._part(name, self.values[name]) for name in self.shapes]

    def follow_parts(self, *, applied_steps: int) -> None:
        self.applied_steps = applied_steps

    def _span(self, shape: tuple[int, ...]) -> tuple[int, int]:
        numel = math.prod(shape)
        if not self._sharded:
            return 0, numel
        size = math.ceil(numel / self._size)
        start = min(self._rank * size, numel)
        return start, min(size, numel - start)

    def _part(self, name: str, values: Tensor) -> Part:
        if not self._sharded:
            return whole(name, values.view(self.shapes[name]))
        start, length = self._span(self.shapes[name])
        return Part(
            name=name,
            shape=self.shapes[name],
            dtype=values.dtype,
            start=start,
            stop=start + length,
            replicated=False,
            read=lambda: values,
            write=lambda first, new: values[first : first + len(new)].copy_(new),
        )


def complete(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
