"""A sampling job without processes: every prompt once, whichever worker dies, and no more parts after a stop."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from r1ray.codec import pack_scored
from r1ray.config.schema import Config
from r1ray.control.commands import Commands
from r1ray.control.fleet import Fleet
from r1ray.control.handles import RolloutApi
from r1ray.control.job_progress import JobStatusWriter
from r1ray.control.managed_actors import RayManagedActors
from r1ray.control.stop import Stop
from r1ray.control.work_dispatcher import WorkDispatcher
from r1ray.errors import DeadlineExceeded, IntegrityError, RetryBudgetExhausted
from r1ray.run.folder import RunFolder
from r1ray.run.metrics import MetricsWriter, read_events
from r1ray.sampling import job as job_module
from r1ray.sampling.job import JobParts, SamplingJob, Wanted
from r1ray.sampling.store import read_samples
from r1ray.types import Sampling
from tests.unit.scripted import FakeHandle, scored


@dataclass
class FakeFleet:
    """Serves `workers`; `on_tick` is called each time that it is looked after."""

    sizes: dict[str, int]
    workers: dict[str, FakeHandle]
    on_tick: Callable[[], None] = lambda: None
    told: list[str] = field(default_factory=list)

    def evaluation_sizes(self) -> dict[str, int]:
        return self.sizes

    def alive(self) -> dict[str, FakeHandle]:
        return self.workers

    def tick(self) -> None:
        self.on_tick()


class FakeManagedActors:
    def tick(self) -> None: ...

    def succeeded(self) -> None: ...


def worker(name: str) -> FakeHandle:
    def evaluate(source: str, start: int, stop: int, sampling: Sampling, n: int, deadline_s: float) -> list[bytes]:
        groups = [scored(i, n=n) for i in range(start, stop)]
        named = [replace(g, rollout=replace(g.rollout, prompt=replace(g.rollout.prompt, task=source))) for g in groups]
        return [pack_scored(g) for g in named]

    return FakeHandle(name, evaluate=evaluate)


Make = Callable[..., tuple[SamplingJob, list[Any]]]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr(job_module, "pause", lambda seconds, tick: tick())
    with ExitStack() as stack:
        yield lambda fleet, stop=None, **sampling: make(tmp_path, stack, fleet, stop, **sampling)


def make(
    tmp_path: Path, stack: ExitStack, fleet: FakeFleet, stop: Stop | None, **sampling: Any
) -> tuple[SamplingJob, list[Any]]:
    config = Config()
    config.sampling.prompts_per_part = sampling.get("part", 2)
    config.run.deterministic = sampling.get("deterministic", False)
    told: list[Any] = []
    wanted = [Wanted(source=name, samples=3, sampling=Sampling(temperature=1.0, seed=0)) for name in fleet.sizes]
    stop, writer = stop or Stop(60.0), stack.enter_context(MetricsWriter(tmp_path, tensorboard=False))
    parts = JobParts(
        fleet=cast(Fleet, fleet),
        managed=cast(RayManagedActors, FakeManagedActors()),
        folder=RunFolder(tmp_path),
        samples=tmp_path / "samples",
        writer=writer,
        stop=stop,
        commands=Commands(RunFolder(tmp_path), stop=stop, on_event=writer.event),
        tell=lambda *args: told.append(args),
    )
    return SamplingJob(config, wanted, parts), told


def sampled(tmp_path: Path) -> Counter[tuple[str, int, int]]:
    return Counter((r.source, r.index, r.sample) for r in read_samples(tmp_path / "samples"))


def every(**sizes: int) -> Counter[tuple[str, int, int]]:
    return Counter((name, i, s) for name, n in sizes.items() for i in range(n) for s in range(3))


def test_every_prompt_is_sampled_once_by_all_workers(job: Make, tmp_path: Path) -> None:
    a, b = worker("a"), worker("b")
    subject, told = job(FakeFleet({"x": 7, "y": 4}, {"a": a, "b": b}))
    assert subject.run()
    assert sampled(tmp_path) == every(x=7, y=4)
    assert a.calls
    assert b.calls
    assert told[-1][:3] == ("running", 11, 11)
    assert [e["tokens"] for e in read_events(tmp_path) if e["kind"] == "sampled"] == [11 * (3 + 4 + 5)]


def test_what_has_a_shard_is_not_sampled_again(job: Make, tmp_path: Path) -> None:
    subject, _ = job(FakeFleet({"x": 6}, {"a": worker("a")}))
    assert subject.run()
    (tmp_path / "samples" / "x-0000002-0000004.parquet").unlink()
    a = worker("a")
    subject, told = job(FakeFleet({"x": 6}, {"a": a}))
    assert subject.run()
    assert [call[1][:3] for call in a.calls] == [("x", 2, 4)]
    assert sampled(tmp_path) == every(x=6)
    assert told[1][:3] == ("running", 4, 6)


def test_a_source_that_has_grown_is_not_sampled_on(job: Make, tmp_path: Path) -> None:
    subject, _ = job(FakeFleet({"x": 3}, {"a": worker("a")}))
    assert subject.run()
    a = worker("a")
    subject, _ = job(FakeFleet({"x": 5}, {"a": a}))
    with pytest.raises(IntegrityError, match="the source x had another number of prompts"):
        subject.run()
    assert a.calls == []
    assert sampled(tmp_path) == every(x=3)


def test_parts_of_a_worker_that_died_go_to_another(job: Make, tmp_path: Path) -> None:
    a, b = worker("a"), worker("b")
    a.hold.add("evaluate")
    fleet = FakeFleet({"x": 8}, {"a": a})

    def on_tick() -> None:
        if a.pending and not a.dead:
            a.kill()
        elif a.dead:
            fleet.workers = {"b": b}

    fleet.on_tick = on_tick
    subject, _ = job(fleet)
    assert subject.run()
    assert sampled(tmp_path) == every(x=8)


def test_a_stop_hands_out_nothing_more_and_keeps_what_comes(job: Make, tmp_path: Path) -> None:
    a, stop = worker("a"), Stop(60.0)
    a.hold.add("evaluate")
    fleet = FakeFleet({"x": 8}, {"a": a})

    def on_tick() -> None:
        if a.pending and not stop.requested:
            stop.request("SIGTERM")
        elif stop.requested and a.hold:
            a.hold.clear()
            for future, call in zip(a.pending, a.calls, strict=True):
                future.set_result(a.methods["evaluate"](*call[1]))

    fleet.on_tick = on_tick
    subject, _ = job(fleet, stop, deterministic=True)
    assert not subject.run()
    assert sampled(tmp_path) == every(x=2)
    assert len(a.calls) == 1  # deterministic: one part at a time
    assert [e["reason"] for e in read_events(tmp_path) if e["kind"] == "interrupted"] == ["SIGTERM"]


def test_a_full_disk_is_waited_out(job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, failures = job_module.write_shard, [OSError(errno.ENOSPC, "full"), OSError(errno.EDQUOT, "full")]

    def write(*args: Any) -> Path:
        if failures:
            raise failures.pop()
        return real(*args)

    monkeypatch.setattr(job_module, "write_shard", write)
    monkeypatch.setattr("r1ray.control.outages.pause", lambda seconds, tick: tick())
    subject, _ = job(FakeFleet({"x": 3}, {"a": worker("a")}))
    assert subject.run()
    assert sampled(tmp_path) == every(x=3)


def test_a_worker_has_so_many_parts_at_once_and_no_more() -> None:
    a = worker("a")
    a.hold.add("evaluate")
    sampling = Sampling(temperature=1.0)
    handout = WorkDispatcher(
        range(5), start=lambda w, i: w.start(RolloutApi.evaluate, "x", i, i + 1, sampling, 1, 1.0), names=str, at_once=2
    )
    for _ in range(3):
        assert handout.tick({"a": a}) == []
    assert (handout.running, handout.unfinished, len(a.calls)) == (2, 5, 2)
    a.pending[0].set_result([])
    assert handout.tick({"a": a}, hand_out=False) == [(0, [])]
    assert (handout.running, handout.unfinished) == (1, 4)


def test_a_part_that_misses_its_deadline_everywhere_ends_the_job(job: Make, tmp_path: Path) -> None:
    def late(*_: Any) -> list[bytes]:
        raise DeadlineExceeded("deadlines.evaluation_s")

    subject, _ = job(FakeFleet({"x": 1}, {"a": FakeHandle("a", evaluate=late)}))
    with pytest.raises(RetryBudgetExhausted, match=r"sampling x \[0, 1\) failed 5 times.*deadlines.evaluation_s"):
        subject.run()


class Screen:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def phase(self, name: str, done: int, total: int) -> None: ...

    def line(self, text: str) -> None:
        self.lines.append(text)


def test_what_is_left_is_told_by_the_pace_since_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("r1ray.control.job_progress.time.monotonic", lambda: now[0])
    view = Screen()
    told = JobStatusWriter(RunFolder(tmp_path), cast(Any, view), kind="eval", phase="sampling", unit="prompts")
    told.report("running", 600, 1000, {"tokens_per_s": 0.0})  # of an earlier start: no pace of this one
    assert told.eta_s is None
    now[0] += 40
    told.report("running", 700, 1000, {"tokens_per_s": 2000.0})
    assert told.eta_s == pytest.approx(120)
    assert view.lines == ["sampling: 700 of 1,000 prompts, 2,000 tokens/s, 2m 00s left"]
