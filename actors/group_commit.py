"""Group commit: calls that arrive together are stored in one transaction, so that they share one fsync."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from r1ray.ledger.ledger import Ledger
from r1ray.ledger.records import PutOutcome

MOST_CALLS = 256
"""Calls in one transaction; the others follow in the next, so that no caller waits long for those before it."""


class GroupCommit:
    """Collects the puts of one turn of the event loop.

    A transaction blocks the loop until it is on the disk, while calls queue up; the next turn takes them all. So a
    single caller waits for one fsync, and many callers share one.
    """

    def __init__(self, ledger: Callable[[], Ledger]) -> None:
        self._ledger = ledger
        self._waiting: list[tuple[list[bytes], bool, asyncio.Future[list[PutOutcome]]]] = []
        self._due = False

    async def put(self, payloads: list[bytes], atomic: bool) -> list[PutOutcome]:
        """As `Ledger.put_calls` for one call; raises its error."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[PutOutcome]] = loop.create_future()
        self._waiting.append((payloads, atomic, future))
        if not self._due:
            self._due = True
            loop.call_soon(self._flush)
        return await future

    def _flush(self) -> None:
        calls, self._waiting = self._waiting[:MOST_CALLS], self._waiting[MOST_CALLS:]
        self._due = bool(self._waiting)
        if self._due:
            asyncio.get_running_loop().call_soon(self._flush)
        try:
            results = self._ledger().put_calls([(payloads, atomic) for payloads, atomic, _ in calls])
        except Exception as e:  # none of them is stored; each caller gets the error
            for _, _, future in calls:
                if not future.done():
                    future.set_exception(e)
            return
        for (_, _, future), result in zip(calls, results, strict=True):
            if future.done():  # its caller was cancelled; the groups are stored anyway
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
