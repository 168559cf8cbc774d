"""The composition root: the only module that knows all parts. It makes Ray actors of them and hands them to the controller.

driver (this process): Controller, Fleet, WeightSync, Evaluator
  |-- queue          QueueOwner        1 actor, restarted by Ray on the same ledger
  |-- reward-i       RewardActor       restarted by Ray, holds nothing
  |-- rollout-i      RolloutActor      replaced by the fleet
  `-- learner-i      LearnerActor      replaced together by the controller, from the last checkpoint
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from types import FrameType
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from actors.engine import CPU_ENVIRONMENT, GPU_ENVIRONMENT
from actors.queue import QueueOwner
from actors.remote import RewardActor, RolloutActor
from learner.actor import LearnerActor
from r1ray.codec import unpack_scored
from r1ray.config.load import LoadedConfig
from r1ray.config.schema import Config
from r1ray.control.controller import Controller, Parts
from r1ray.control.fleet import Fleet, FleetSettings
from r1ray.control.learners import LearnerGroup
from r1ray.control.progress import Progress
from r1ray.errors import InfrastructureError, ProcessDied
from r1ray.ledger.ledger import Ledger
from r1ray.ledger.records import LedgerSettings
from r1ray.metrics import MetricsWriter, read_evaluations
from r1ray.runfolder import RunFolder
from r1ray.types import BatchManifest
from r1ray.view import View, make_view

FETCH_GROUPS = 64


class RayRemote:
    """`r1ray.control.calls.Remote` over a Ray actor."""

    def __init__(self, name: str, handle: Any) -> None:
        self.name = name
        self._handle = handle

    def call(self, method: str, *args: Any, **kwargs: Any) -> Future[Any]:
        answer: Future[Any] = Future()

        def translate(future: Future[Any]) -> None:
            error = future.exception()
            if error is None:
                answer.set_result(future.result())
                return
            if isinstance(error, RayTaskError):
                error = error.cause  # what the method raised, without Ray's traceback around it
            elif isinstance(error, RayActorError):
                error = ProcessDied(f"{self.name} died: {error}")
            elif isinstance(error, RayError):
                error = InfrastructureError(f"{self.name}.{method}: {error}")
            answer.set_exception(error)

        getattr(self._handle, method).remote(*args, **kwargs).future().add_done_callback(translate)
        return answer

    def kill(self) -> None:
        ray.kill(self._handle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Makes the actors of one run."""

    config: Config
    model_path: str
    vocab_hash: str
    folder: RunFolder

    def connect(self) -> None:
        """Join the configured cluster, or start one on this machine that ends with this process."""
        ray_config = self.config.ray
        logging.getLogger("ray").setLevel(logging.ERROR)
        if ray_config.address is not None:
            ray.init(address=ray_config.address, log_to_driver=False, logging_level=logging.ERROR)
            return
        # Ray's CPUs are for placement only; a small machine may share a core among processes that mostly wait.
        needed = sum(cpus * count for cpus, count in self._cpu_demand())
        ray.init(
            num_cpus=max(ray_config.num_cpus or os.cpu_count() or 1, int(needed + 1)),
            object_store_memory=int(ray_config.object_store_gib * 2**30),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=ray_config.temp_dir,
        )

    def _cpu_demand(self) -> list[tuple[float, int]]:
        c = self.config
        return [
            (c.rollout.num_cpus, max(c.rollout.workers, c.rollout.max_workers)),
            (c.learner.num_cpus, c.learner.ranks),
            (c.reward_worker.num_cpus, c.reward_worker.workers),
            (0.1, 1),
        ]

    def queue(self, settings: LedgerSettings) -> Any:
        return self._actor(
            QueueOwner,
            0.1,
            0.0,
            self.config.ray.queue_resources,
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=1000,
        ).remote(str(self.folder.ledger), settings)

    def rewards(self, queue: Any) -> list[Any]:
        c = self.config.reward_worker
        actor = self._actor(
            RewardActor, c.num_cpus, c.num_gpus, self.config.ray.reward_resources, max_restarts=-1, max_concurrency=8
        )
        return [actor.remote(self.config, queue) for _ in range(c.workers)]

    def rollout(self, name: str, queue: Any, rewards: list[Any]) -> RayRemote:
        c = self.config.rollout
        environment = GPU_ENVIRONMENT if c.num_gpus else CPU_ENVIRONMENT
        gpus = c.num_gpus * c.engine.tensor_parallel_size
        actor = self._actor(
            RolloutActor,
            c.num_cpus,
            gpus,
            self.config.ray.rollout_resources,
            max_concurrency=16,
            environment=environment,
        )
        return RayRemote(name, actor.remote(self.config, name, self.model_path, self.vocab_hash, queue, rewards))

    def learner(self, rank: int, queue: Any) -> RayRemote:
        c = self.config.learner
        actor = self._actor(_LearnerProcess, c.num_cpus, c.num_gpus, self.config.ray.learner_resources)
        return RayRemote(f"learner-{rank}", actor.remote(self.config, rank, self._transport(), queue))

    def _transport(self) -> str:
        if self.config.sync.transport != "auto":
            return self.config.sync.transport
        return "nccl" if self.config.learner.num_gpus else "gloo"

    def _actor(
        self,
        cls: type,
        num_cpus: float,
        num_gpus: float,
        resources: dict[str, float],
        *,
        environment: Any = None,
        **options: Any,
    ) -> Any:
        variables = {"OMP_NUM_THREADS": "1", **(environment or {})}
        return ray.remote(cls).options(
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            resources=resources or None,
            runtime_env={"env_vars": variables},
            **options,
        )


class _LearnerProcess(LearnerActor):
    """A LearnerActor that fetches from the queue actor."""

    def __init__(self, config: Config, rank: int, transport: str, queue: Any) -> None:
        def fetch(group_ids: list[str]) -> list[bytes]:
            chunks = [group_ids[i : i + FETCH_GROUPS] for i in range(0, len(group_ids), FETCH_GROUPS)]
            answers = ray.get([queue.payloads.remote(c) for c in chunks], timeout=config.deadlines.rpc_s)
            return [payload for answer in answers for payload in answer]

        super().__init__(
            config=config,
            rank=rank,
            world_size=config.learner.ranks,
            transport=transport,
            fetch=fetch,
            address=ray.util.get_node_ip_address(),
        )


def ledger_settings(config: Config) -> LedgerSettings:
    """The rules of the ledger out of the configuration."""
    queue = config.queue
    return LedgerSettings(
        groups_per_step=config.learner.groups_per_step,
        max_staleness=queue.max_staleness,
        lease_timeout_s=queue.lease_timeout_s,
        max_attempts=queue.max_attempts,
        stale_policy="drop" if queue.stale == "drop" else "reissue",
        dynamic_sampling=config.algorithm.dynamic_sampling,
        keep_payload_steps=queue.keep_payload_steps,
    )


def train(loaded: LoadedConfig, folder: RunFolder, *, resume: bool) -> int:
    """Train in `folder`, whose lock the caller holds. Returns the exit code; raises R1RayError."""
    config = loaded.config
    with make_view(total_steps=config.run.steps) as view:
        model_path, vocab_hash = _model(config, view)
        settings = ledger_settings(config)
        if not folder.ledger.exists():
            Ledger.create(folder.ledger, settings, run_id=folder.identity().run_id).close()
        cluster = Cluster(config=config, model_path=model_path, vocab_hash=vocab_hash, folder=folder)
        writer = MetricsWriter(
            folder.path, tensorboard=config.logging.tensorboard, wandb_project=config.logging.wandb_project
        )
        cluster.connect()
        try:
            with writer:
                return _run(cluster, settings, writer, view, resume)
        finally:
            ray.shutdown()


def _run(cluster: Cluster, settings: LedgerSettings, writer: MetricsWriter, view: View, resume: bool) -> int:
    config, folder = cluster.config, cluster.folder
    writer.event("started", resume=resume, pid=os.getpid())
    queue = cluster.queue(settings)
    rewards = cluster.rewards(queue)
    queue_remote = RayRemote("queue", queue)

    def spawn(name: str) -> tuple[RayRemote, Future[Any]]:
        remote = cluster.rollout(name, queue, rewards)
        return remote, remote.call("ready")

    def make_fleet() -> Fleet:
        return Fleet(
            FleetSettings(
                workers=config.rollout.workers,
                restart_budget=config.recovery.worker_restarts,
                start_s=config.deadlines.actor_start_s,
                answer_s=config.deadlines.rpc_s,
                drain_s=config.deadlines.shutdown_s,
            ),
            spawn=spawn,
            release=lambda name: queue.release_worker.remote(name),
            on_event=writer.event,
        )

    progress = Progress(
        folder=folder, view=view, writer=writer, steps=config.run.steps, evaluations=read_evaluations(folder.path)
    )
    controller = Controller(
        config,
        Parts(
            folder=folder,
            writer=writer,
            queue=queue_remote,
            make_learners=lambda tick: LearnerGroup(config, spawn=lambda rank: cluster.learner(rank, queue), tick=tick),
            make_fleet=make_fleet,
            transcripts=_transcripts(config, queue),
            progress=progress,
        ),
    )
    _stop_on_signals(controller, view)
    try:
        finished = controller.run()
    except BaseException as e:
        writer.event("failed", error=type(e).__name__, message=str(e))
        controller.close("failed", f"{type(e).__name__}: {e}")
        raise
    writer.event("finished" if finished else "interrupted")
    controller.close("finished" if finished else "interrupted")
    return 0


def _stop_on_signals(controller: Controller, view: View) -> None:
    """The first SIGINT or SIGTERM ends the run after the step under way, the second at once."""

    def stop(signum: int, frame: FrameType | None) -> None:
        controller.request_stop()
        signal.signal(signum, signal.default_int_handler)
        view.line("Stopping after this step, with a checkpoint; once more to stop at once.")

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def _transcripts(config: Config, queue: Any) -> Callable[[BatchManifest], list[dict[str, Any]]]:
    def sample(manifest: BatchManifest) -> list[dict[str, Any]]:
        """One completion of each of the first groups of a batch."""
        ids = [g.group_id for g in manifest.groups[: config.logging.transcripts_per_step]]
        rows = []
        for i, payload in enumerate(ray.get(queue.payloads.remote(ids), timeout=config.deadlines.rpc_s) if ids else []):
            group = unpack_scored(payload)
            completion, score = group.rollout.completions[i % len(group.scores)], group.scores[i % len(group.scores)]
            rows.append(
                {
                    "step": manifest.step,
                    "prompt_id": group.rollout.prompt.prompt_id,
                    "prompt": group.rollout.prompt.messages[-1]["content"],
                    "text": completion.text,
                    "reward": score.reward,
                    "parts": score.parts,
                    "finish_reason": completion.finish_reason,
                    "tokens": len(completion.token_ids),
                }
            )
        return rows

    return sample


def _model(config: Config, view: View) -> tuple[str, str]:
    """Path and vocabulary hash of the model; the embedded one is built where it is missing."""
    from pathlib import Path

    from r1ray.data.vocab import vocab_hash

    path = Path(config.model.path)
    return str(path), vocab_hash(path)
