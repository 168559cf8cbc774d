"""Create the Ray actors of a run, with the resources of its configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from actors.handle import QUEUE, RayHandle, reward_names
from actors.processes import QueueProcess, RewardProcess, RolloutProcess
from actors.remote import PULSE
from r1ray.config.rules import SupervisedUse
from r1ray.config.schema import Config
from r1ray.config.uses import Use, processes
from r1ray.control.handles import Handle, LearnerApi, Place, QueueApi, RewardApi, RolloutApi, SupervisedApi
from r1ray.launch import ray_session
from r1ray.launch.gang import GroupedHandle, PlacementGroupGang, Rank, Spawn, engine_bundles
from r1ray.launch.processes import LearnerProcess, RewardModelProcess, SftProcess, dump_stack
from r1ray.ledger.records import LedgerSettings
from r1ray.preflight.fork_servers import Kind, environment_of, imports_of, python_of
from r1ray.run.ledger import LedgerPlace
from r1ray.run.recording import Replay
from r1ray.telemetry.logs import LogTarget
from r1ray.util.imports import IMPORT_PATH, import_folders
from r1ray.util.vllm_environment import DETERMINISTIC_CUDA, ONE_HOST_NCCL

Params = ParamSpec("Params")
T = TypeVar("T")

STACKS_S = 30.0
"""Deadline for taking the stacks of all processes together: a Ray worker starts for each."""

FETCH_S = 1.0
"""Deadline for fetching a stack that has been taken, which is some kilobytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Makes the actors of one run. They find the queue and the reward workers by name, in the namespace of this job."""

    config: Config
    model_path: str
    vocab_hash: str
    run_dir: str
    run_id: str

    def connect(self, use: Use = "train", expired: Callable[[str], object] = str) -> None:
        """Join the configured cluster, or start one on this machine that ends with this process.

        `expired`: see `ray_session.connect`.
        """
        ray_config = self.config.ray
        # Ray's CPUs are for placement only; a small machine may share a core among processes that mostly wait.
        needed = sum(cpus * count for cpus, count in self._cpu_demand(use))
        ray_session.connect(
            ray_config.address,
            self._log("ray"),
            expired,
            num_cpus=max(ray_config.num_cpus or os.cpu_count() or 1, int(needed + 1)),
            object_store_memory=int(ray_config.object_store_gib * 2**30),
            include_dashboard=False,
            _temp_dir=ray_config.temp_dir,
        )

    def metrics_addresses(self) -> list[str]:
        """Where Prometheus finds the metrics: host:port of the agent of each node, below /metrics."""
        return [f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in ray.nodes() if node["Alive"]]

    def _cpu_demand(self, use: Use) -> list[tuple[float, int]]:
        c = self.config
        demand = {
            "rollout": (c.rollout.num_cpus, max(c.rollout.workers, c.rollout.max_workers)),
            "learner": (c.learner.num_cpus, c.learner.ranks),
            "reward_worker": (c.reward_worker.num_cpus, c.reward_worker.workers),
        }
        return [(0.1, 1), *(demand[name] for name in processes(c, use))]

    def queue(self, settings: LedgerSettings, replay: Replay | None = None) -> Handle[QueueApi]:
        """Start the queue actor, on the driver's node unless `ray.queue_resources` says otherwise."""
        spawn = self._actor(
            QueueProcess,
            0.1,
            0.0,
            self.config.ray.queue_resources,
            restarts=True,
            name=QUEUE,
            max_task_retries=-1,
            max_concurrency=1000,
            # The ledger needs a local disk: by default that of the driver.
            scheduling_strategy=None if self.config.ray.queue_resources else _here(),
        )
        ledger = LedgerPlace.of(self.config.run, Path(self.run_dir), self.run_id)
        return spawn(QUEUE, ledger, settings, replay)

    def rewards(self) -> list[Handle[RewardApi]]:
        """Start the reward workers."""
        c = self.config.reward_worker
        resources = self.config.ray.reward_resources
        handles: list[Handle[RewardApi]] = []
        for name in reward_names(self.config):
            spawn = self._actor(
                RewardProcess,
                c.num_cpus,
                c.num_gpus,
                resources,
                groups={PULSE: 1},
                restarts=True,
                name=name,
                max_concurrency=8,
            )
            handles.append(spawn(name, self.config))
        return handles

    def rollout(self, name: str, use: Use = "train") -> Handle[RolloutApi]:
        """Start a rollout worker."""
        c = self.config.rollout
        group: PlacementGroup | None = None
        gpus, resources = c.num_gpus * c.engine.tensor_parallel_size, self.config.ray.rollout_resources
        if c.engine.hosts > 1:  # then vLLM's processes hold the GPUs, as actors in the other bundles
            group, gpus, resources = placement_group(engine_bundles(self.config), strategy="PACK"), 0.0, {}
        spawn = self._actor(
            RolloutProcess,
            c.num_cpus,
            gpus,
            resources,
            kind="rollout",
            groups={PULSE: 4},
            group=group,
            max_concurrency=16,
        )
        return spawn(name, self.config, name, self.model_path, self.vocab_hash, use)

    def learner(self) -> PlacementGroupGang[LearnerApi]:
        """Reserve the ranks of policy optimization."""

        def spawn(rank: int, place: PlacementGroupSchedulingStrategy) -> Handle[LearnerApi]:
            return self._rank(LearnerProcess, place)(f"learner-{rank}", self.config, rank)

        return self._gang(spawn)

    def supervised(self, use: SupervisedUse) -> PlacementGroupGang[SupervisedApi]:
        """Reserve the ranks of supervised fine-tuning or of reward-model training."""

        def spawn(rank: int, place: PlacementGroupSchedulingStrategy) -> Handle[SupervisedApi]:
            start = self._rank(SftProcess, place) if use == "sft" else self._rank(RewardModelProcess, place)
            return start(f"learner-{rank}", self.config, rank, self.vocab_hash)

        return self._gang(spawn)

    def _gang(self, spawn: Spawn[Rank]) -> PlacementGroupGang[Rank]:
        c = self.config.learner
        each = {"CPU": c.num_cpus, "GPU": c.num_gpus, **self.config.ray.learner_resources}
        return PlacementGroupGang(c.ranks, {name: amount for name, amount in each.items() if amount}, spawn)

    def _rank(
        self, cls: Callable[Concatenate[LogTarget, Params], T], place: PlacementGroupSchedulingStrategy
    ) -> Callable[Concatenate[str, Params], Handle[T]]:
        c = self.config.learner
        resources = self.config.ray.learner_resources
        return self._actor(cls, c.num_cpus, c.num_gpus, resources, kind="learner", scheduling_strategy=place)

    def _actor(
        self,
        cls: Callable[Concatenate[LogTarget, Params], T],
        num_cpus: float,
        num_gpus: float,
        resources: dict[str, float],
        *,
        kind: Kind | None = None,
        groups: dict[str, int] | None = None,
        group: PlacementGroup | None = None,
        restarts: bool = False,
        **options: Any,
    ) -> Callable[Concatenate[str, Params], Handle[T]]:
        """How to start an actor of the plain class `cls`, by its name and the arguments of the class behind the log
        file.

        `kind`: of a process that may be forked. `groups`: threads of each concurrency group. `restarts`: Ray restarts
        the actor whenever it dies. `group`: its own, of whose first bundle it is; the processes that it starts in the
        others inherit its environment.
        """
        if group is not None:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        on_gpu = num_gpus > 0 or group is not None
        # Ray hides only those GPUs that it has given to others.
        hidden = {} if on_gpu else {"CUDA_VISIBLE_DEVICES": ""}
        imports = {IMPORT_PATH: os.pathsep.join(import_folders())}
        exact = DETERMINISTIC_CUDA if on_gpu and self.config.run.deterministic else {}
        local = ONE_HOST_NCCL if on_gpu and self.config.ray.address is None else {}
        environment = {} if kind is None else environment_of(kind, self.config)
        variables = {"OMP_NUM_THREADS": "1", **hidden, **imports, **exact, **local, **environment}
        python = None if kind is None else python_of(imports_of(kind, self.config))
        forked = {} if python is None else {"py_executable": python}
        made = ray.remote(concurrency_groups=groups)(cls) if groups else ray.remote(cls)
        actor = made.options(
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            resources=resources or None,
            runtime_env={"env_vars": variables, **forked},
            max_restarts=-1 if restarts else 0,
            **options,
        )

        def spawn(name: str, /, *args: Params.args, **kwargs: Params.kwargs) -> Handle[T]:
            started = actor.remote(self._log(name), *args, **kwargs)
            if group is not None:
                return GroupedHandle(name, started, group)
            return RayHandle(name, started, restarts=restarts)

        return spawn

    def _log(self, name: str) -> LogTarget:
        path = Path(self.run_dir).absolute() / "logs" / f"{name}.log"
        return LogTarget(path=path, run_id=self.run_id, actor=name, as_json=self.config.logging.json)

    def stacks(self, places: Mapping[str, Place]) -> dict[str, str]:
        """The stacks of processes by name, taken on their nodes. A node that does not answer says so instead."""
        looks = {}
        for name, place in places.items():
            there = NodeAffinitySchedulingStrategy(place["node"], soft=False)
            looks[name] = ray.remote(dump_stack).options(num_cpus=0, scheduling_strategy=there).remote(place["pid"])
        answered, _ = ray.wait(list(looks.values()), num_returns=len(looks), timeout=STACKS_S) if looks else ([], [])
        found = {}
        for name, look in looks.items():
            try:
                found[name] = ray.get(look, timeout=FETCH_S) if look in answered else f"no answer within {STACKS_S:g} s"
            except RayError as e:
                found[name] = f"no answer from its node: {e}"
        return found


def _here() -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
