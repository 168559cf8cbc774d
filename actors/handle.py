"""Ray actors as typed handles, and calls that are retried until an actor that Ray restarts has answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any, TypeVar

import ray
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from r1ray.config.schema import Config
from r1ray.control.handles import Api, Handle, QueueApi, RewardApi
from r1ray.errors import DeadlineExceeded, InfrastructureError, ProcessDied

R = TypeVar("R")

QUEUE = "queue"
"""Name of the queue actor."""
RETRY_S = 0.5
LONGEST_RETRY_S = 2.0
"""The pause between two attempts doubles up to this while an actor is alive but cannot serve (no judge, no space).

Well below `actors.queue.PROBLEM_S`; otherwise a paused run would seem to recover in between.
"""


def cause_of_death(text: str) -> str:
    """The last line of Ray's text on a dead actor, without the causes that it lists for any death."""
    return text.strip().splitlines()[-1].partition("Some common causes include")[0].strip()


class RayHandle(Handle[Api]):
    """A Ray actor; if it `restarts`, Ray starts it again whenever it dies."""

    def __init__(self, name: str, actor: Any, *, restarts: bool = False) -> None:
        self.name = name
        self._actor = actor
        self._restarts = restarts

    def _start(self, method: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Future[Any]:
        answer: Future[Any] = Future()

        def translate(future: Future[Any]) -> None:
            error = future.exception()
            if error is None:
                answer.set_result(future.result())
                return
            if isinstance(error, RayTaskError):
                error = error.cause  # raised by the method, without Ray's traceback around it
            elif isinstance(error, OutOfMemoryError) or (
                isinstance(error, RayActorError) and not isinstance(error, ActorUnavailableError)
            ):
                error = ProcessDied(f"{self.name} died: {cause_of_death(str(error))}")
            elif isinstance(error, RayError):
                error = InfrastructureError(f"{self.name}.{method}: {error}")
            answer.set_exception(error)

        getattr(self._actor, method).remote(*args, **kwargs).future().add_done_callback(translate)
        return answer

    def kill(self) -> None:
        """End the actor; Ray restarts it if it `restarts`."""
        ray.kill(self._actor, no_restart=not self._restarts)


def queue_handle() -> Handle[QueueApi]:
    """The queue actor of this run. Ray raises ValueError if there is none."""
    return RayHandle(QUEUE, ray.get_actor(QUEUE), restarts=True)


def reward_names(config: Config) -> list[str]:
    """Names of the reward workers."""
    return [f"reward-{i}" for i in range(config.reward_worker.workers)]


def reward_handles(config: Config) -> list[Handle[RewardApi]]:
    """The reward workers of this run. Ray raises ValueError if one is missing."""
    return [RayHandle(name, ray.get_actor(name), restarts=True) for name in reward_names(config)]


class RetryingClient:
    """Calls of actors that Ray restarts, repeated until one succeeds: each of these calls may run more than once."""

    def __init__(self, config: Config) -> None:
        self._rpc_s = config.deadlines.rpc_s
        self._outage_s = config.recovery.outage_timeout_s

    def call(self, start: Callable[[], Future[R]], what: str, *, timeout_s: float = 0.0) -> R:
        """The result of the call that `start` starts. Each attempt may take `timeout_s` beside `deadlines.rpc_s`.

        Raises InfrastructureError after failures for `recovery.outage_timeout_s`, and the method's own errors.
        """
        until: float | None = None
        pause_s = RETRY_S
        while True:
            try:
                return self._attempt(start(), timeout_s + self._rpc_s, what)
            except InfrastructureError as e:
                until = until or time.monotonic() + self._outage_s
                if time.monotonic() >= until:
                    raise InfrastructureError(f"{e} (for recovery.outage_timeout_s={self._outage_s:g})") from e
                time.sleep(min(pause_s, max(0.0, until - time.monotonic())))
                pause_s = RETRY_S if isinstance(e, ProcessDied) else min(2 * pause_s, LONGEST_RETRY_S)

    def _attempt(self, call: Future[R], timeout_s: float, what: str) -> R:
        if not wait([call], timeout=timeout_s).done:
            raise DeadlineExceeded(f"no answer within {timeout_s:g} s (deadlines.rpc_s) from {what}")
        try:
            return call.result()
        except ProcessDied as e:
            raise ProcessDied(f"{what}: {e}") from e
        except InfrastructureError as e:
            raise InfrastructureError(f"{what}: {e}") from e
