"""Copies of the ledger into the run folder, made by the queue's process beside its work."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from r1ray.errors import R1RayError
from r1ray.ledger.copies import read_copy, write_copy
from r1ray.ledger.ledger import Ledger
from r1ray.ledger.records import CopyState, WrittenCopy

RETRY_S = 10.0
"""Pause after a copy that failed, if it is shorter than the interval of the copies."""


class LedgerCopies:
    """Writes a copy at each request and every `every_s` seconds, in a thread; one at a time.

    Requests during a copy are answered by one more copy. The ledger itself is only used on the event loop, to record
    the time of the copy in it.
    """

    def __init__(
        self,
        ledger: Ledger,
        source: Path,
        target: Path,
        run_id: str,
        every_s: float,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._source, self._target, self._run_id = source, target, run_id
        self._every_s = every_s
        self._clock = clock
        self._wanted = asyncio.Event()
        self._ended = asyncio.Condition()
        self._begun = self._finished = 0  # attempts
        self._last = self._earlier()
        self._problem: str | None = None
        self._task = asyncio.get_running_loop().create_task(self._run())

    def _earlier(self) -> WrittenCopy | None:
        """The copy that an earlier process of the run wrote."""
        try:
            return read_copy(self._target, self._run_id) if self._target.exists() else None
        except R1RayError:  # the first copy of this process replaces it
            return None

    @property
    def state(self) -> CopyState:
        """The last copy, and what prevents newer ones."""
        age = None if self._last is None else max(0.0, self._clock() - self._last.copied_at)
        return CopyState(last=self._last, age_s=age, problem=self._problem)

    def request(self) -> None:
        """Make a copy soon."""
        self._wanted.set()

    async def complete(self) -> CopyState:
        """Wait for a copy that begins after this call, or for its failure."""
        begun = self._begun
        self.request()
        async with self._ended:
            await self._ended.wait_for(lambda: self._finished > begun)
        return self.state

    async def stop(self) -> None:
        """Make no more copies."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            wait_s = self._every_s if self._problem is None else min(RETRY_S, self._every_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), wait_s)
            await self._copy()

    async def _copy(self) -> None:
        self._wanted.clear()
        self._begun += 1
        try:
            self._ledger.stamp_copy()
            self._last = await asyncio.to_thread(write_copy, self._source, self._target, self._run_id)
            self._problem = None
        except R1RayError as e:  # the controller reports it; the run continues
            self._problem = str(e)
        async with self._ended:
            self._finished += 1
            self._ended.notify_all()
