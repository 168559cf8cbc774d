"""Composition root of `r1ray train`: create the Ray actors and hand them to the controller.

A replay (`--replay RUN`) has no reward and no rollout workers: its queue reads the groups of the recorded run.

driver (this process): Controller, Fleet, WeightSync, Evaluator
  |-- queue          QueueOwner        1 actor, restarted by Ray on the same ledger
  |-- reward-i       RewardActor       restarted by Ray, has no state
  |-- rollout-i      RolloutActor      replaced by the fleet
  `-- learner-i      PolicyRank        all replaced together by the controller, from the last checkpoint
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import ray

from actors.telemetry import RayRecorder
from r1ray.config.load import LoadedConfig
from r1ray.config.schema import AutoscaleConfig, Config
from r1ray.config.uses import replays
from r1ray.control.controller import Controller, Parts
from r1ray.control.copy_monitor import finish_copies
from r1ray.control.fleet import Fleet
from r1ray.control.handles import Handle, QueueApi
from r1ray.control.learners import LearnerGroup
from r1ray.control.progress import Progress
from r1ray.control.run_telemetry import RunTelemetry
from r1ray.control.stalls import Stalls
from r1ray.control.step_profile import StepProfile
from r1ray.control.watchdog import Watchdog
from r1ray.launch.cluster import Cluster
from r1ray.launch.session import Session, open_session
from r1ray.launch.supervision import managed_actors, rollout_fleet
from r1ray.ledger.records import NO_STALENESS, LedgerSettings
from r1ray.report import build_report
from r1ray.run.folder import RunFolder
from r1ray.run.metrics import MetricsWriter, read_evaluations
from r1ray.run.recording import Replay
from r1ray.transport.rendezvous import abort


def ledger_settings(config: Config) -> LedgerSettings:
    """Return the ledger's part of the configuration."""
    queue = config.queue
    return LedgerSettings(
        groups_per_step=config.learner.groups_per_step,
        max_staleness=NO_STALENESS if replays(config) else queue.max_staleness,
        lease_timeout_s=queue.lease_timeout_s,
        max_attempts=queue.max_attempts,
        max_requeues=queue.max_requeues,
        stale_policy="drop" if queue.stale_policy == "drop" else "requeue",
        reserve_after_stale=queue.reserve_after_stale,
        dynamic_sampling=config.algorithm.dynamic_sampling,
        keep_payload_steps=queue.keep_payload_steps,
    )


def train(loaded: LoadedConfig, folder: RunFolder, *, resume: bool, profile: int | None = None) -> int:
    """Train in `folder`, whose lock the caller holds. Returns the exit code; raises R1RayError.

    `profile`: number of steps to profile.
    """
    with open_session(loaded, folder, "train", total_steps=loaded.config.run.steps, resume=resume) as session:
        controller, ended = _controller(session, profile)
        session.run(controller.run, ended)
    session.view.line(f"Report: {build_report(folder.path)}")
    return 0


def _controller(session: Session, profile: int | None) -> tuple[Controller, Callable[[str, str], None]]:
    """The controller of a run, and what records its end."""
    cluster, folder, writer = session.cluster, session.folder, session.writer
    config = _without_rollouts(cluster.config) if replays(cluster.config) else cluster.config
    replay = Replay.of(config.replay, folder)
    queue = cluster.queue(ledger_settings(config), replay)
    if replay is not None:
        writer.event("replaying", message=replay.text, run=replay.run_dir, **replay.recording.to_json())
    telemetry = RunTelemetry(RayRecorder(cluster.run_id), config)
    writer.listeners.append(telemetry.event)
    writer.event("connected", metrics=cluster.metrics_addresses())
    progress = Progress(
        folder=folder,
        view=session.view,
        writer=writer,
        telemetry=telemetry,
        steps=config.run.steps,
        sources=[source.name for source in config.data.evaluation],
        evaluations=read_evaluations(folder.path),
    )
    stalls = Stalls(
        config=config.recovery,
        watchdog=Watchdog(config.recovery.stall_timeout_s),
        stacks=cluster.stacks,
        folder=folder,
        writer=writer,
    )
    fleet = _fleet(cluster, queue, writer)
    profiled = None if profile is None else _profile(session, profile)
    controller = Controller(
        config,
        Parts(
            folder=folder,
            writer=writer,
            queue=queue,
            learners=lambda tick: LearnerGroup(config, reserve=cluster.learner, tick=tick, on_event=writer.event),
            fleet=fleet,
            managed=managed_actors(cluster, writer.event, queue=queue),
            stalls=stalls,
            progress=progress,
            stop=session.stop,
            commands=session.commands,
            abort=abort,
            profile=profiled,
        ),
    )

    def ended(state: str, message: str) -> None:
        progress.state(state, message)
        progress.write(fleet)
        if profiled is not None:
            profiled.close()
        if config.run.ledger_dir is not None:
            finish_copies(queue, config.deadlines.shutdown_s, on_event=writer.event)

    return controller, ended


def _profile(session: Session, steps: int) -> StepProfile:
    return StepProfile(
        steps,
        folder=session.folder,
        deadline_s=session.cluster.config.deadlines.checkpoint_s,
        timeline=lambda path: ray.timeline(filename=str(path)),
        show=session.view.line,
        on_event=session.writer.event,
    )


def _without_rollouts(config: Config) -> Config:
    """The configuration of the control loop of a replay: no workers to scale, and none to evaluate on."""
    rollout = replace(config.rollout, workers=0, autoscale=AutoscaleConfig())
    return replace(config, rollout=rollout, data=replace(config.data, evaluation=[]))


def _fleet(cluster: Cluster, queue: Handle[QueueApi], writer: MetricsWriter) -> Fleet:
    def release(name: str, drained: bool) -> None:
        # Not awaited: if the call fails, the leases expire by themselves.
        queue.start(QueueApi.release_worker, name, drained)

    return rollout_fleet(cluster, "train", release=release, on_event=writer.event)
