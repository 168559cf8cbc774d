"""Stand-ins for vLLM and for processes, for tests without either."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from benchmarks.groups import make_completion, make_group, make_prompt
from r1ray.control.handles import Handle
from r1ray.errors import ProcessDied, WeightSyncError
from r1ray.transport.transfer import Applied
from r1ray.types import Completion, PromptTask, RolloutGroup, Sampling, Score, ScoredGroup


def completion(
    tokens: int = 3, version: int = 0, text: str = "x", spans: Sequence[tuple[int, int, int]] = ()
) -> Completion:
    return make_completion(tokens, text=text, version=version, spans=spans)


def prompt(index: int = 0) -> PromptTask:
    return make_prompt(index, answer=str(index), task="test")


def group(index: int = 0, n: int = 2, version: int = 0, attempt: int = 1) -> RolloutGroup:
    completions = [completion(3 + i, version) for i in range(n)]
    timings = {"queued": 0.0, "generated": 0.1}
    return make_group(f"{index}-{attempt}", prompt(index), completions, max_new_tokens=8, timings=timings)


def scored(index: int = 0, n: int = 2, version: int = 0, rewards: Sequence[float] | None = None) -> ScoredGroup:
    values = rewards if rewards is not None else [float(i % 2) for i in range(n)]
    scores = tuple(Score(reward=r, parts={"accuracy": r, "format": 1.0}) for r in values)
    return ScoredGroup(rollout=group(index, len(values), version), scores=scores)


class ScriptedEngine:
    """Answers every request after `steps` engine steps; weights arrive when `arrive()` was called."""

    def __init__(self, steps: int = 2) -> None:
        self._steps = steps
        self._running: dict[str, tuple[int, int]] = {}  # request -> steps left, n
        self.version = -1
        self.min_version = -1  # with an older policy no request makes progress
        self.groups: list[Any] = []
        self._receiving = False
        self.arrived = False
        self.failure: Exception | None = None

    def submit(self, request_id: str, token_ids: Sequence[int], sampling: Sampling, n: int) -> None:
        self._running[request_id] = (self._steps, n)

    def step(self) -> list[tuple[str, tuple[Completion, ...]]]:
        if self.failure is not None:
            raise self.failure
        if self.version < self.min_version:
            return []
        finished = []
        for request_id, (left, n) in list(self._running.items()):
            self._running[request_id] = (left - 1, n)
            if left == 1:
                del self._running[request_id]
                finished.append((request_id, tuple(completion(version=self.version) for _ in range(n))))
        return finished

    @property
    def unfinished(self) -> int:
        return sum(n for _, n in self._running.values())

    def enter_group(self, rendezvous: Any, rank: int, host: str | None) -> None:
        self.groups.append((rendezvous, rank, host))

    def begin_receive(self, layout: Any, bucket_bytes: int) -> None:
        self._receiving = True

    def try_apply(self, version: int) -> Applied | None:
        if isinstance(self.arrived, Exception):
            error, self.arrived = self.arrived, False
            raise error
        if not self.arrived:
            return None
        self.arrived = False
        self.version = version
        return Applied(version=version, digest=f"digest-{version}", apply_s=0.0, digest_s=0.0)

    def set_version(self, version: int) -> None:
        self.version = version


class FakeHandle(Handle[Any]):
    """A process whose methods are functions; `dead` makes every call raise ProcessDied, `hold` leaves them pending."""

    def __init__(self, name: str, **methods: Callable[..., Any]) -> None:
        self.name = name
        self.methods = methods
        self.dead = False
        self.hold: set[str] = set()
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.pending: list[Future[Any]] = []  # of held calls; they fail when the process is killed

    def _start(self, method: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Future[Any]:
        self.calls.append((method, tuple(args), kwargs))
        future: Future[Any] = Future()
        if self.dead:
            future.set_exception(ProcessDied(f"{self.name} died"))
        elif method not in self.hold:
            try:
                future.set_result(self.methods[method](*args, **kwargs))
            except Exception as e:
                future.set_exception(e)
        else:
            self.pending.append(future)
        return future

    def kill(self) -> None:
        self.dead = True
        for future in self.pending:
            if not future.done():
                future.set_exception(ProcessDied(f"{self.name} died"))


class FakeGang:
    """A reservation of a learner's ranks: made at once, unless the test holds it."""

    def __init__(self, spawn: Callable[[int], FakeHandle], *, held: bool = False) -> None:
        self.spawn = spawn
        self.reserved: Future[Any] = Future()
        self.released = False
        if not held:
            self.reserved.set_result(None)

    def describe(self) -> str:
        return "nodes for the learner"

    def release(self) -> None:
        self.released = True


def sync_failure(text: str = "peer died") -> WeightSyncError:
    return WeightSyncError(text)
