"""A run with fake processes, a real ledger and a real run folder, to test the control loop."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

from actors.replayed import ReplayedGroups
from learner.checkpoint import discard_newer, prune
from r1ray.codec import pack_scored
from r1ray.config.schema import Config
from r1ray.control.commands import Commands
from r1ray.control.controller import Controller, Parts
from r1ray.control.fleet import Fleet, FleetSettings
from r1ray.control.handles import RankProfile
from r1ray.control.health import HealthLimits
from r1ray.control.learners import LearnerGroup
from r1ray.control.managed_actors import Budget, RayManagedActors
from r1ray.control.progress import Progress
from r1ray.control.run_telemetry import RunTelemetry
from r1ray.control.stalls import Stalls
from r1ray.control.step_profile import StepProfile
from r1ray.control.stop import Stop
from r1ray.control.watchdog import Watchdog
from r1ray.ledger.ledger import Ledger
from r1ray.ledger.records import NO_STALENESS, LedgerOpened, LedgerSettings
from r1ray.run.audit import audit_run
from r1ray.run.checkpoints import find_latest, list_checkpoints, step_of
from r1ray.run.folder import RunFolder
from r1ray.run.identity import RunIdentity
from r1ray.run.metrics import MetricsWriter, read_evaluations, read_events
from r1ray.run.profile import BACKWARD, FORWARD
from r1ray.run.recording import Replay
from r1ray.transport.transfer import Applied, Sent
from r1ray.types import BatchManifest
from tests.unit.ledger_support import write_checkpoint
from tests.unit.recorder import MemoryRecorder
from tests.unit.scripted import FakeGang, FakeHandle, scored

LIMITS = HealthLimits(start_s=60, suspect_s=20, dead_s=60)


class Disk:
    """Checkpoints as the learner sees them, in real folders: outlives its processes."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.exported = 0

    @property
    def checkpoints(self) -> list[int]:
        return [step for step, _ in list_checkpoints(self._folder.checkpoints)]


class World:
    """A run of `steps` steps with one rollout worker that answers at once; `plan` makes calls of the learner fail.

    With `replay` it has no rollout worker, and trains on the groups of that recorded run.
    """

    def __init__(self, folder: Path, *, replay: Replay | None = None, **changes: Any) -> None:
        self.config = Config()
        self.replay = replay
        if replay is not None:
            self.config.rollout.workers = 0
        self.config.run.steps = 6
        self.config.learner.groups_per_step = 1
        self.config.checkpoint.every_steps = 2
        self.config.checkpoint.keep = 9
        self.config.logging.transcripts_per_step = 1
        for key, value in changes.items():
            section, name = key.split("__")
            setattr(getattr(self.config, section), name, value)
        self.plan: dict[tuple[str, Any], list[BaseException | float]] = {}  # (method, step) -> what its next calls do
        self.trained: list[int] = []
        self.published: list[int] = []
        self.starts = 0
        self.digests = True
        self.worker_start_s = 0.0
        self.evaluated: list[int] = []
        self.metrics = MemoryRecorder()
        self.groups_opened = 0  # for weight syncs
        self.worker_holds: set[str] = set()  # calls that the worker does not answer
        self.profile_steps: int | None = None
        self.profiled: list[str] = []  # what was done for the profile, in order
        self.profile_problem: str | None = None
        self.shown: list[str] = []  # lines of the profile on the terminal
        identity = RunIdentity.new(vocab_hash="v", model_hash="m", config_hash="c")
        self.folder = RunFolder.create(folder / "run", "", identity)
        self.disk = Disk(self.folder)
        settings = LedgerSettings(
            groups_per_step=1,
            max_staleness=1 if replay is None else NO_STALENESS,
            lease_timeout_s=600,
            max_attempts=3,
            keep_payload_steps=self.config.queue.keep_payload_steps,
        )
        self.ledger = Ledger.create(self.folder.ledger, settings, run_id=identity.run_id)
        path = str(self.folder.ledger.absolute())
        self.opened = LedgerOpened(
            source="found", host="head", path=path, copied_at=None, stored=0, bound_steps=0
        )  # what the queue says of its ledger
        self.stop = Stop(self.config.deadlines.shutdown_s)
        self.problem: str | None = None  # of the queue, by its own word
        self.queue = FakeHandle("queue", **self._queue_methods())
        self.on_train: Callable[[int], None] = lambda step: None
        self.on_change: Callable[[str], None] = lambda method: None  # before and after a call that may write

    def _queue_methods(self) -> dict[str, Callable[..., Any]]:
        def take(step: int, wait_s: float) -> BatchManifest | None:
            if (manifest := self.ledger.take(step)) is None and self.replay is not None:
                while ReplayedGroups(self.replay).fill(self.ledger, step):
                    pass
                manifest = self.ledger.take(step)
            elif manifest is None:  # the worker's part: lease, answer, store
                for lease in self.ledger.lease("rollout-0", self.published[-1], 1):
                    group = scored(lease.index, version=self.published[-1])
                    rollout = replace(group.rollout, group_id=lease.group_id)
                    self.ledger.put(pack_scored(replace(group, rollout=rollout)))
                manifest = self.ledger.take(step)
            return manifest

        names = ("commit", "rollback", "next_incarnation", "publish", "payloads", "status", "release_all")
        methods = {name: self._told(name, getattr(self.ledger, name)) for name in names}
        return {
            **methods,
            "open": self._open_ledger,
            "take": take,
            "stop_leasing": lambda: None,
            "identity": self.identity,
        }

    def _open_ledger(self) -> LedgerOpened:
        return self.opened

    def identity(self) -> dict[str, Any]:
        """What the queue says of itself."""
        return {"pid": 1, "node": "n", "problem": self.problem}

    def _told(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.on_change(name)
            result = method(*arguments)
            self.on_change(name)
            return result

        return call

    def _do(self, method: str, step: Any) -> Any:
        planned = self.plan.get((method, step))
        what = planned.pop(0) if planned else None
        if isinstance(what, BaseException):
            raise what
        return what

    def _learner(self, rank: int) -> FakeHandle:
        self.starts += 1
        version = 0

        def train_step(manifest: BatchManifest) -> dict[str, float]:
            nonlocal version
            self.on_train(manifest.step)
            skipped = self._do("train_step", manifest.step) or 0.0
            assert manifest.step == version
            self.trained.append(version)
            version += 1
            return {"train/skipped": skipped, "learner/step_s": 0.1, "batch/tokens": 8.0, "reward/mean": 0.0}

        def load_latest(folder: str, run_id: str) -> dict[str, Any]:
            nonlocal version
            found = find_latest(Path(folder), run_id=run_id)
            newest = None if found.path is None else step_of(found.path)
            version = newest or 0
            return {"policy_version": newest, "name": f"step_{version:06d}", "warnings": list(found.warnings)}

        def save(folder: str, run_id: str) -> None:
            self._do("save_checkpoint", version)
            assert version not in self.disk.checkpoints, "a checkpoint is written once"
            write_checkpoint(self.folder.path, version, run_id)

        def discard(folder: str, newer_than: int) -> None:
            discard_newer(Path(folder), newer_than)

        def forget(folder: str) -> None:
            keep = self.config.checkpoint
            prune(Path(folder), keep=keep.keep, keep_every=keep.keep_every_steps)

        def publish(asked: int, group: object) -> Sent:
            self._do("publish", asked)
            assert asked == version
            self.published.append(asked)
            return Sent(digest=self._digest(asked), seconds=0.0, wire_bytes=8)

        def open_epoch(epoch: int, receivers: int) -> str:
            self.groups_opened += 1
            return "rendezvous"

        def export(folder: str) -> None:
            self._do("export", version)
            self.disk.exported += 1

        def stop_profile(folder: str) -> RankProfile:
            self.profiled.append(f"stop before step {version}")
            self._do("stop_profile", version)
            return {"seconds": {FORWARD: 0.06, BACKWARD: 0.1}, "problem": self.profile_problem}

        return FakeHandle(
            f"learner-{rank}",
            address=lambda: "host",
            listen=lambda host: 1,
            setup=lambda address, port: {"place": {"pid": self.starts, "node": "n"}},
            train_step=train_step,
            load_latest=load_latest,
            save_checkpoint=self._told("save_checkpoint", save),
            discard_checkpoints=self._told("discard_checkpoints", discard),
            prune_checkpoints=self._told("prune_checkpoints", forget),
            publish=publish,
            weight_specs=list,
            weight_shares=list,
            open_epoch=open_epoch,
            export=export,
            start_profile=lambda: self.profiled.append(f"start before step {version}"),
            stop_profile=stop_profile,
        )

    def _digest(self, version: int) -> str:
        return f"{self.starts}-{version}" if self.digests else ""

    def _spawn(self, name: str) -> tuple[FakeHandle, Future[Any]]:
        def receive(*, version: int, **_: Any) -> Applied:
            return Applied(version=version, digest=self._digest(version), apply_s=0, digest_s=0)

        ready: Future[Any] = Future()
        sizes = {source.name: 1 for source in self.config.data.evaluation}
        info = {"place": {"pid": 1, "node": "n"}, "evaluation": sizes}
        if self.worker_start_s:
            Timer(self.worker_start_s, ready.set_result, (info,)).start()
        else:
            ready.set_result(info)
        stats = {"tokens": 1.0, "stuck_s": 0.0, "warm": 1.0, "short_of_memory": 0.0}

        def evaluate(*_: Any) -> list[bytes]:
            self.evaluated.append(self.published[-1])
            group = scored(0, version=self.published[-1])
            scores = tuple(replace(s, parts={**s.parts, "fluency": -float(self.published[-1])}) for s in group.scores)
            return [pack_scored(replace(group, scores=scores))]

        remote = FakeHandle(
            name, stats=lambda: dict(stats), receive_weights=receive, evaluate=evaluate, drain=lambda s: None
        )
        remote.hold = self.worker_holds
        return remote, ready

    def run(self) -> bool:
        """One driver, from its start to its end; a second call is a resume."""
        config, recovery = self.config, self.config.recovery
        telemetry = RunTelemetry(self.metrics, config)
        with MetricsWriter(self.folder.path, tensorboard=False, on_event=telemetry.event) as writer:
            fleet = Fleet(
                FleetSettings(
                    workers=1 if self.replay is None else 0,
                    max_workers=4,
                    restart_budget=2,
                    max_missed_syncs=3,
                    limits=LIMITS,
                    drain_s=1,
                ),
                spawn=self._spawn,
                release=lambda name, drained: None,
                on_event=writer.event,
            )
            parts = Parts(
                folder=self.folder,
                writer=writer,
                queue=self.queue,
                learners=lambda tick: LearnerGroup(
                    config, reserve=lambda: FakeGang(self._learner), tick=tick, on_event=writer.event
                ),
                fleet=fleet,
                managed=RayManagedActors(
                    [(Budget(restarts=2, key="recovery.max_queue_restarts"), [self.queue])],
                    limits=LIMITS,
                    on_event=writer.event,
                ),
                stalls=Stalls(
                    config=recovery,
                    watchdog=Watchdog(recovery.stall_timeout_s),
                    stacks=lambda places: {name: f"stack of {name}" for name in places},
                    folder=self.folder,
                    writer=writer,
                ),
                progress=Progress(
                    folder=self.folder,
                    view=NoView(),
                    writer=writer,
                    telemetry=telemetry,
                    steps=6,
                    sources=[source.name for source in config.data.evaluation],
                    evaluations=read_evaluations(self.folder.path),
                ),
                stop=self.stop,
                commands=Commands(self.folder, stop=self.stop, on_event=writer.event, clock=itertools.count().__next__),
                abort=lambda rendezvous, reason: False,
                profile=self._step_profile(writer),
            )
            try:
                return Controller(config, parts).run()
            finally:
                if parts.profile is not None:
                    parts.profile.close()

    def _step_profile(self, writer: MetricsWriter) -> StepProfile | None:
        if self.profile_steps is None:
            return None
        return StepProfile(
            self.profile_steps,
            folder=self.folder,
            deadline_s=60.0,
            timeline=lambda path: self.profiled.append(path.name),
            show=self.shown.append,
            on_event=writer.event,
        )

    def close(self) -> None:
        self.ledger.close()
        self.folder.release()

    def expect_clean(self, after: str) -> None:
        """Assert that `r1ray verify` has nothing to say."""
        found = audit_run(self.folder.path)
        assert found.ok, (after, found.violations)

    def kinds(self) -> list[str]:
        return [e["kind"] for e in read_events(self.folder.path)]


class NoView:
    def phase(self, name: str, done: int, total: int) -> None: ...
    def update(self, status: Any) -> None: ...
    def line(self, text: str) -> None: ...
    def __enter__(self) -> NoView:
        return self

    def __exit__(self, *failure: object) -> None: ...
