"""Recognise a start that fails in the same way for every rollout worker, such as a wrong engine setting."""

from __future__ import annotations

import re

from r1ray.errors import InfrastructureError, WorkersCannotStart, node_of
from r1ray.util.formatting import one_line

MIN_FAILURES = 3
ROUNDS = 2
"""Failures of each worker, on average: one failure of each may have a passing cause, such as a busy GPU."""
_NUMBER = re.compile(r"0x[0-9a-f]+|\d+")


class StartFailures:
    """Counts equal failures in a row until the first worker of this driver is ready.

    Failures are equal if type and text are, numbers aside. Dead processes and missed deadlines (InfrastructureError)
    are not counted: their cause is outside the worker, and `recovery.max_worker_restarts` bounds them.
    """

    def __init__(self) -> None:
        self._any_ready = False
        self._kind = ""
        self._count = 0
        self._nodes: dict[str, None] = {}  # of these failures, in order

    def succeeded(self) -> None:
        """A worker is ready: the configuration works, and later failures have other causes."""
        self._any_ready = True

    def failed(self, name: str, error: BaseException, *, workers: int) -> None:
        """Count the failed start of worker `name` of `workers`.

        Raises WorkersCannotStart at the ROUNDS * `workers`-th (at least MIN_FAILURES-th) equal failure.
        """
        if self._any_ready or isinstance(error, InfrastructureError):
            return
        kind = _NUMBER.sub("N", f"{type(error).__name__}: {error}")
        if kind != self._kind:
            self._kind, self._count, self._nodes = kind, 0, {}
        self._count += 1
        if (node := node_of(error)) is not None:
            self._nodes[node] = None
        if self._count >= max(MIN_FAILURES, ROUNDS * workers):
            raise WorkersCannotStart(
                f"no rollout worker can start: {self._count} attempts in a row failed{self._where()} with "
                f"{type(error).__name__}: {one_line(str(error))}. "
                f"logs/{name}.log in the run folder has the traceback; correct `rollout`, `rollout.engine` or `model`"
            ) from error

    def _where(self) -> str:
        return f" on {'node' if len(self._nodes) == 1 else 'nodes'} {', '.join(self._nodes)}" if self._nodes else ""
