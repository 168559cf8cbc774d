"""Rollout worker: keeps one engine full, delivers groups as they finish, changes weights in flight.

Threads of this class, each with one task:

    leaser   leases prompts from the ledger while the engine has room         -> inbox
    engine   inbox -> engine.step() -> outbox; runs commands between two steps, applies received weights
    senders  outbox -> a reward worker, which scores and stores the group; retried elsewhere if that worker dies

A lease stays open until the ledger has stored the scored group, so prompts that are lost here are leased again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import chain
from typing import Any, TypeVar

from actors.engine import GenerationEngine
from actors.inflight import Group, InflightWeights
from actors.requests import Prompts, Services, Work, evaluation_works, run_all, training_work
from actors.reward_calls import for_one_call, senders
from actors.room import Room
from r1ray.codec import pack_rollout
from r1ray.config.schema import Config
from r1ray.errors import DataError, DeadlineExceeded, ProcessDied
from r1ray.ledger.records import Lease
from r1ray.transport.transfer import Applied, WeightLayout
from r1ray.types import Completion, PromptTask, RolloutGroup, Sampling
from r1ray.util.machine import memory_in_use, resident_bytes

R = TypeVar("R")
UNSYNCED = -1
"""Version of a worker that has not completed a weight sync; it leases nothing."""

PRESSURE_S = 1.0
"""Interval of the checks of a host that is short of memory."""


class RolloutWorker:
    """See the module's docstring. `start` runs the threads; the other methods may be called from any thread."""

    def __init__(
        self,
        *,
        config: Config,
        worker_id: str,
        engine: GenerationEngine,
        prompts: Prompts | None,
        services: Services,
        memory: Callable[[], float] = memory_in_use,
    ) -> None:
        """`memory()` is the share of the host's memory that is in use. Without `prompts` it leases nothing."""
        self._config = config
        self._id = worker_id
        self._engine = engine
        self._prompts = prompts
        self._services = services
        self._memory = memory
        self._short_of_memory = False
        self._changed = threading.Condition()
        self._inbox: deque[list[Work]] = deque()  # each list was leased or requested together
        self._outbox: deque[RolloutGroup] = deque()
        self._working: dict[str, Work] = {}  # only the engine's thread uses it
        self._commands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._weights = InflightWeights(engine, worker_id, self._serving)
        self._version = UNSYNCED
        self._held: set[str] = set()  # groups from lease until their `deliver` has returned
        self._leased = 0  # of them, those that no sender has been given
        self._room = Room(config)
        self._draining = self._stopping = False
        self._failure: BaseException | None = None
        self._step_began: float | None = None  # None: the engine is not in a step
        self._warm = False  # the first step has ended, in which kernels may be compiled
        self._counts = {"tokens": 0, "groups": 0, "busy_s": 0.0, "idle_s": 0.0, "steps": 0}

    def start(self) -> None:
        """Start the threads."""
        leasing = [] if self._prompts is None else [self._lease_loop, *[self._send_loop] * senders(self._config)]
        for loop in (self._engine_loop, *leasing):
            threading.Thread(target=self._guard, args=(loop,), name=loop.__name__, daemon=True).start()

    def receive_weights(
        self, *, version: int, group: Group | None, layout: WeightLayout, bucket_bytes: int, deadline_s: float
    ) -> Applied:
        """Take part in one weight sync: enter `group` (rendezvous, rank, host) if given, receive, apply.

        Blocks the caller, not the engine. Raises WeightSyncError (the worker continues with its old policy) or
        ServedWeightsDiffer (it must be replaced).
        """
        result = self._call(lambda: self._weights.begin(version, group, layout, bucket_bytes), deadline_s)
        return self._await(result, deadline_s, f"policy {version} to arrive and be applied (sync.deadline_s)")

    def generate(
        self, prompts: Sequence[PromptTask], sampling: Sampling, n: int, deadline_s: float
    ) -> list[RolloutGroup]:
        """Sample `prompts` n times each, concurrently with the training groups. Groups in the order of the prompts.

        If `sampling` has a seed, each prompt gets its own from it.
        """
        until = time.monotonic() + deadline_s
        works = evaluation_works(prompts, sampling, n)
        with self._changed:
            self._refuse_if_failed()
            self._inbox.append([work for work, _ in works])
            self._changed.notify_all()
        what = "evaluation completions (deadlines.evaluation_s)"
        return [self._await(result, until - time.monotonic(), what) for _, result in works]

    def stats(self) -> dict[str, float]:
        """Counters since the start (tokens, groups, busy_s, idle_s, steps) and gauges (version, leased, undelivered,
        stuck_s: of the present step, warm: 0 until the first has ended, short_of_memory: 1: leases no more, rss_bytes).
        """
        self._refuse_if_failed()
        began = self._step_began
        gauges: dict[str, float] = {"version": self._version, "leased": self._leased, "warm": float(self._warm)}
        gauges["undelivered"] = len(self._held) - self._leased
        gauges |= {"short_of_memory": float(self._short_of_memory), "rss_bytes": float(resident_bytes())}
        gauges["stuck_s"] = 0.0 if began is None else time.monotonic() - began
        return {**self._counts, **gauges}

    def drain(self, deadline_s: float) -> None:
        """Lease nothing more, finish and deliver the groups in progress. Raises DeadlineExceeded."""
        self.stop_leasing()
        with self._changed:
            if not self._changed.wait_for(lambda: not self._held, deadline_s):
                raise DeadlineExceeded(f"{self._id} still held {len(self._held)} groups after {deadline_s:g} s")

    def stop_leasing(self) -> None:
        """Lease nothing more."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()

    def stop(self) -> None:
        """End the threads after their present step."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    # -- threads ------------------------------------------------------------------------------------------------

    def _guard(self, loop: Callable[[], None]) -> None:
        """Run a thread. An error ends the worker: `stats` and all waiting callers raise it."""
        try:
            loop()
        except BaseException as e:
            with self._changed:
                self._failure = self._failure or e
                works = [*self._working.values(), *chain(*self._inbox)]
                waiting = [f for _, f in self._commands] + [w.result for w in works if w.result]
                self._weights.fail(e)
                self._changed.notify_all()
            for future in waiting:
                if not future.done():
                    future.set_exception(self._gone(e))
            self.stop()

    def _free(self) -> int:  # groups to lease now
        ready = not self._draining and self._version != UNSYNCED
        return self._room.groups(self._leased) if ready else 0

    def _lease_loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._free() > 0)
                if self._stopping:
                    return
                want, version, held = self._free(), self._version, sorted(self._held)
                # The groups in the engine are finished and delivered, which frees memory or at least takes no more.
                self._short_of_memory = self._memory() > self._config.recovery.max_memory_fraction
                if self._short_of_memory:
                    self._changed.wait_for(lambda: self._stopping, PRESSURE_S)
                    continue
            leases = self._services.lease(self._id, version, want, held)
            works = [w for w in map(self._work, leases) if w is not None]
            with self._changed:
                self._leased += len(works)
                self._held.update(work.group_id for work in works)
                if works:
                    self._room.take(works)
                    self._inbox.append(works)
                self._changed.notify_all()

    def _work(self, lease: Lease) -> Work | None:
        assert self._prompts is not None
        try:
            return training_work(self._config, lease, self._prompts.task_at(lease.index))
        except DataError as e:
            self._services.fail(lease.group_id, str(e))
            return None

    def _engine_loop(self) -> None:
        while True:
            waited = time.monotonic()
            with self._changed:
                # The thread that receives weights cannot notify, hence the short timeout.
                pause = 0.002 if self._weights.receiving else None
                if not self._engine.unfinished:
                    self._changed.wait_for(lambda: self._stopping or self._commands or self._inbox, pause)
                if self._stopping:
                    return
                commands, works = list(self._commands), self._admit()
                self._commands.clear()
            began = time.monotonic()
            run_all(commands)
            self._submit(works)
            if self._engine.unfinished:
                self._step_began = time.monotonic()
                finished = self._engine.step()
                self._step_began, self._warm = None, True
                self._finish(finished)
                self._count_room()
            self._weights.try_apply()
            self._counts["idle_s"] += began - waited
            self._counts["busy_s"] += time.monotonic() - began
            self._counts["steps"] += 1

    def _admit(self) -> list[Work]:
        """Requests for the engine now: all, or in a deterministic run the next batch once the engine is empty.

        The last bits of a logit depend on which sequences share an engine step.
        """
        exact, works = self._config.run.deterministic, list[Work]()
        while self._inbox and not (exact and (works or self._engine.unfinished)):
            works += self._inbox.popleft()
        return works

    def _submit(self, works: list[Work]) -> None:
        self._working.update({work.group_id: work for work in works})
        for work in works:
            work.submitted_at = time.monotonic()
            self._engine.submit(work.group_id, work.prompt.token_ids.tolist(), work.sampling, work.n)

    def _finish(self, finished: list[tuple[str, tuple[Completion, ...]]]) -> None:
        for group_id, completions in finished:
            work = self._working.pop(group_id)
            group = work.finished(completions, self._id)
            self._counts["tokens"] += sum(len(c.token_ids) for c in completions)
            self._counts["groups"] += 1
            if work.result:
                work.result.set_result(group)
                continue
            with self._changed:
                self._leased -= 1
                self._outbox.append(group)
                self._changed.notify_all()

    def _count_room(self) -> None:
        with self._changed:
            had_room = self._free() > 0
            self._room.count(chain(*self._inbox), self._working.values(), self._engine.unfinished)
            if not had_room and self._free() > 0:
                self._changed.notify_all()

    def _serving(self, version: int) -> None:
        with self._changed:
            self._version = version
            self._changed.notify_all()
        self._services.serving(self._id, version)

    def _send_loop(self) -> None:
        exact = self._config.run.deterministic
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or (self._outbox and not (exact and self._leased)))
                if self._stopping:
                    return
                groups = for_one_call(self._outbox, take_all=exact)
            self._services.deliver([pack_rollout(g) for g in groups])
            with self._changed:
                self._held.difference_update(g.group_id for g in groups)
                self._changed.notify_all()

    def _refuse_if_failed(self) -> None:
        if self._failure is not None:
            raise self._gone(self._failure) from self._failure

    def _gone(self, error: BaseException) -> ProcessDied:
        """The process is alive but the worker has ended: callers repeat their calls elsewhere."""
        return ProcessDied(f"{self._id} has failed: {type(error).__name__}: {error}")

    def _call(self, command: Callable[[], R], deadline_s: float) -> R:
        """Run `command` on the engine's thread, between two steps."""
        result: Future[R] = Future()
        with self._changed:
            self._refuse_if_failed()
            self._commands.append((command, result))
            self._changed.notify_all()
        return self._await(result, deadline_s, "the engine's thread to finish its step")

    def _await(self, result: Future[R], timeout_s: float, what: str) -> R:
        try:
            return result.result(timeout=max(0.0, timeout_s))
        except TimeoutError:
            raise DeadlineExceeded(f"{self._id} waited {timeout_s:.0f} s for {what}") from None
