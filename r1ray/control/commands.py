"""Carry out the requests that `r1ray scale` and `r1ray stop` leave in the run folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from r1ray.control.stop import Stop
from r1ray.errors import ConfigError
from r1ray.run.folder import RunFolder
from r1ray.run.requests import Answer, Request, answer_to, pending
from r1ray.util.files import is_disk_full

LOOK_EVERY_S = 0.5


class Scaling(Protocol):
    """What has a number of workers: the fleet."""

    def scale(self, workers: int, by: str) -> int:
        """Set the number of rollout workers; returns the one before. Raises ConfigError that says what is allowed."""
        ...


class Commands:
    """Requests to this driver, looked for twice a second at most: the run folder may be on a network file system."""

    def __init__(
        self,
        folder: RunFolder,
        *,
        stop: Stop,
        on_event: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._stop = stop
        self._event = on_event
        self._clock = clock
        self._looked = float("-inf")

    def tick(self, scaling: Scaling | None) -> None:
        """Carry out new requests and answer them. `scaling` None: the run has no rollout workers."""
        now = self._clock()
        if now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        for request in pending(self._folder):
            try:
                answer = self._carry_out(request, scaling)
            except ConfigError as e:
                answer = Answer(accepted=False, message=str(e))
            try:
                answer_to(self._folder, request, answer)
            except OSError as e:
                if not is_disk_full(e):  # the sender reports that there is no answer; the events say what was done
                    raise

    def _carry_out(self, request: Request, scaling: Scaling | None) -> Answer:
        if request.command == "scale":
            return self._scale(request, scaling)
        if request.command == "stop":
            return self._end(request)
        raise ConfigError(
            f"this driver does not know the request {request.command!r}: it runs another version of r1ray"
        )

    def _scale(self, request: Request, scaling: Scaling | None) -> Answer:
        workers = request.arguments.get("rollout")
        if scaling is None:
            raise ConfigError("this run has no rollout workers to scale")
        if not isinstance(workers, int):
            raise ConfigError(f"rollout={workers!r}: expected an integer")
        if self._stop.requested:
            raise ConfigError(f"the run is stopping ({self._stop.reason}): scale it after a resume")
        before = scaling.scale(workers, request.by)
        return Answer(accepted=True, message=f"rollout workers: {before} -> {workers}")

    def _end(self, request: Request) -> Answer:
        grace = self._stop.grace_s
        if request.arguments.get("now"):
            self._event("stop_requested", by=request.by, at_once=True)
            self._stop.at_once()
            return Answer(accepted=True, message="stopping at once, without a checkpoint", within_s=grace)
        if self._stop.request(f"r1ray stop by {request.by}"):
            self._event("stop_requested", by=request.by, at_once=False)
            message = "stopping with a checkpoint as soon as nothing would be lost"
        else:
            message = f"already stopping ({self._stop.reason})"
        return Answer(accepted=True, message=message, within_s=grace)
