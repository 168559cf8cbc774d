"""How many rollout workers one queue and one reward worker serve, and what a group costs them.

    python -m benchmarks.scale [--workers 1 8 32 128] [--tokens 500] [--write]

Each rollout worker is a process of its own with all of `RolloutWorker` but vLLM: a scripted engine answers every group
`ANSWER_S` after it was submitted, so that a worker with `IN_ENGINE` groups offers IN_ENGINE / ANSWER_S groups a second.
Leases, scoring, the ledger and the batches are real. This process takes the batches and reads their payloads, as a
learner does; it trains nothing, so no weights change.

All processes share this machine. The columns are groups taken a second, beside what the workers offer, and the
processor time of each kind of process per group.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from actors.queue import QueueOwner
from benchmarks import measure
from benchmarks.groups import make_completion, make_prompt
from r1ray.config.schema import Config
from r1ray.config.sections.rewards import RewardConfig
from r1ray.config.sections.run import RunConfig
from r1ray.ledger.ledger import Ledger
from r1ray.ledger.records import LedgerSettings
from r1ray.run.ledger import LedgerPlace
from r1ray.transport.channel import Rendezvous
from r1ray.transport.transfer import Applied, WeightLayout
from r1ray.types import Completion, PromptTask, Sampling

RUN = "benchmark"
ANSWER_S = 2.0
IN_ENGINE = 4
TICK_S = 0.02
"""Seconds of an engine step."""
COMPLETIONS = 8
BATCH = 32
WARM_S, MEASURED_S = 5.0, 15.0
CALL_S = 120.0


class TimedEngine:
    """A `GenerationEngine` without a model; weights are there at once."""

    def __init__(self, tokens: int) -> None:
        """`tokens` of a completion."""
        self._completions = tuple(make_completion(tokens, text="word " * (tokens // 2)) for _ in range(COMPLETIONS))
        self._due: deque[tuple[float, str]] = deque()

    def submit(self, request_id: str, token_ids: Sequence[int], sampling: Sampling, n: int) -> None:
        """Answered `ANSWER_S` later."""
        self._due.append((time.monotonic() + ANSWER_S, request_id))

    def step(self) -> list[tuple[str, tuple[Completion, ...]]]:
        """Those whose time has come, after `TICK_S`."""
        time.sleep(TICK_S)
        finished = []
        while self._due and self._due[0][0] <= time.monotonic():
            finished.append((self._due.popleft()[1], self._completions))
        return finished

    @property
    def unfinished(self) -> int:
        """See `GenerationEngine.unfinished`."""
        return len(self._due) * COMPLETIONS

    def enter_group(self, rendezvous: Rendezvous, rank: int, host: str | None) -> None:
        """There is none."""

    def begin_receive(self, layout: WeightLayout, bucket_bytes: int) -> None:
        """Nothing arrives."""

    def try_apply(self, version: int) -> Applied | None:
        """At once."""
        return Applied(version=version, digest="", apply_s=0.0, digest_s=0.0)

    def set_version(self, version: int) -> None:
        """Every token has version 0."""


class Prompts:
    """Equal prompts."""

    def task_at(self, index: int) -> PromptTask:
        """See `actors.requests.Prompts`."""
        return make_prompt(index, token_ids=range(100))


class Worker:
    """A rollout worker in its process."""

    def __init__(self, config: Config, name: str, tokens: int) -> None:
        from actors.remote import QueueAndRewards
        from actors.rollout import RolloutWorker

        self._worker = RolloutWorker(
            config=config,
            worker_id=name,
            engine=TimedEngine(tokens),
            prompts=Prompts(),
            services=QueueAndRewards(config),
        )

    def begin(self) -> None:
        """Lease prompts from now on."""
        self._worker.start()
        self._worker.receive_weights(
            version=0, group=None, layout=WeightLayout(weights=[], shares=[]), bucket_bytes=1, deadline_s=CALL_S
        )

    def pid(self) -> int:
        """Of this process."""
        return os.getpid()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number of workers. Milliseconds are processor time per group."""

    workers: int
    offered_per_s: float
    taken_per_s: float
    queue_ms: float
    reward_ms: float
    rollout_ms: float
    idle: float  # share of all cores


def processor_s(pids: Sequence[int]) -> float:
    """Processor time of the processes so far."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


class Fleet:
    """The real queue and reward worker, and rollout workers that begin to lease one after another."""

    def __init__(self, scratch: Path, workers: int, tokens: int) -> None:
        import ray

        from actors.handle import QUEUE, reward_names
        from actors.remote import PULSE, RewardActor

        config = Config()
        config.rollout.group_size, config.rollout.groups_in_engine = COMPLETIONS, IN_ENGINE
        config.rollout.workers = workers
        config.rewards = [RewardConfig(name="format")]
        settings = LedgerSettings(groups_per_step=BATCH, max_staleness=10**9, lease_timeout_s=1e9, max_attempts=1)
        place = LedgerPlace.of(RunConfig(ledger_on_network=True), scratch, RUN)
        Ledger.create(place.file, settings, run_id=RUN).close()
        free = {"num_cpus": 0, "max_concurrency": 1000}
        self.queue = ray.remote(QueueOwner).options(name=QUEUE, **free).remote(place, settings, RUN)
        (name,) = reward_names(config)
        self._reward = (
            ray.remote(concurrency_groups={PULSE: 2})(RewardActor)
            .options(name=name, num_cpus=0, max_concurrency=16)
            .remote(config)
        )
        self._workers = [
            ray.remote(Worker).options(num_cpus=0).remote(config, f"rollout-{i}", tokens) for i in range(workers)
        ]
        pids = [self.queue.identity.remote(), self._reward.identity.remote()]
        self._queue_pid, self._reward_pid = (answer["pid"] for answer in ray.get(pids, timeout=CALL_S))
        self._pids: list[int] = ray.get([w.pid.remote() for w in self._workers], timeout=CALL_S)
        self._begun = self._step = 0

    async def measure(self, workers: int) -> Row:
        """With the first `workers` at work."""
        await asyncio.gather(*(w.begin.remote() for w in self._workers[self._begun : workers]))
        self._begun = workers
        await self._take(WARM_S)
        groups_of = ([self._queue_pid], [self._reward_pid], self._pids[:workers])
        before, idle = [processor_s(pids) for pids in groups_of], psutil.cpu_times()
        began = time.monotonic()
        taken = await self._take(MEASURED_S)
        seconds = time.monotonic() - began
        used = [(processor_s(pids) - b) * 1e3 / taken for pids, b in zip(groups_of, before, strict=True)]
        cores = psutil.cpu_count() or 1
        return Row(
            workers=workers,
            offered_per_s=workers * IN_ENGINE / ANSWER_S,
            taken_per_s=taken / seconds,
            queue_ms=used[0],
            reward_ms=used[1],
            rollout_ms=used[2],
            idle=(psutil.cpu_times().idle - idle.idle) / (seconds * cores),
        )

    async def _take(self, seconds: float) -> int:
        """Take whole batches and read them until the time is over; groups taken."""
        until, taken = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            manifest = await self.queue.take.remote(self._step, seconds)
            if manifest is None:
                continue
            await self.queue.payloads.remote([g.group_id for g in manifest.groups])
            self._step += 1
            taken += len(manifest.groups)
        return taken


def measure_all(arguments: argparse.Namespace) -> list[Row]:
    """A row for each number of workers, with one Ray."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        with tempfile.TemporaryDirectory(prefix="r1ray-scale-", dir=".") as scratch:
            fleet = Fleet(Path(scratch).absolute(), max(arguments.workers), arguments.tokens)
            with closing(asyncio.new_event_loop()) as loop:
                return [loop.run_until_complete(fleet.measure(n)) for n in sorted(arguments.workers)]
    finally:
        ray.shutdown()


def main() -> None:
    """Measure, print the table, and store the result with --write."""
    parser = measure.parser(__doc__, repeats=1)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 32, 128], help="numbers of rollout workers")
    parser.add_argument("--tokens", type=int, default=500, help="tokens of a completion")
    arguments = parser.parse_args()
    session = measure.start("scale", arguments)
    rows = measure_all(arguments)
    heads = ["workers", "offered/s", "taken/s", "queue ms", "reward ms", "rollout ms", "idle"]
    cells = [[r.workers, r.offered_per_s, r.taken_per_s, r.queue_ms, r.reward_ms, r.rollout_ms, r.idle] for r in rows]
    print(measure.table(heads, cells))
    result: dict[str, Any] = {"tokens": arguments.tokens, "completions": COMPLETIONS}
    session.finish(result | {"rows": [dict(zip(heads, row, strict=True)) for row in cells]}, {})


if __name__ == "__main__":
    main()
