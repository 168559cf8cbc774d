"""Create the supervision of runs with rollout workers from their configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from r1ray.config.schema import Config
from r1ray.config.uses import Use, processes, replays
from r1ray.control.fleet import Fleet, FleetSettings
from r1ray.control.handles import Handle, ManagedApi, QueueApi, RolloutApi, WorkerInfo
from r1ray.control.health import HealthLimits
from r1ray.control.managed_actors import Budget, RayManagedActors
from r1ray.launch import ray_session
from r1ray.launch.cluster import Cluster

OnEvent = Callable[..., None]


def health_limits(config: Config) -> HealthLimits:
    """Return the time limits of health checks."""
    deadlines = config.deadlines
    return HealthLimits(start_s=deadlines.actor_start_s, suspect_s=deadlines.rpc_s / 4, dead_s=deadlines.rpc_s)


def managed_actors(cluster: Cluster, on_event: OnEvent, *, queue: Handle[QueueApi] | None = None) -> RayManagedActors:
    """Start the reward workers and supervise them, with the queue if the run has one.

    A replay has no reward workers.
    """
    recovery = cluster.config.recovery
    kinds: list[tuple[Budget, Sequence[Handle[ManagedApi]]]] = []
    if queue is not None:
        kinds.append((Budget(restarts=recovery.max_queue_restarts, key="recovery.max_queue_restarts"), [queue]))
    if queue is None or not replays(cluster.config):
        budget = Budget(restarts=recovery.max_worker_restarts, key="recovery.max_worker_restarts")
        kinds.append((budget, cluster.rewards()))
    return RayManagedActors(kinds, limits=health_limits(cluster.config), on_event=on_event)


def rollout_fleet(cluster: Cluster, use: Use, *, release: Callable[[str, bool], None], on_event: OnEvent) -> Fleet:
    """Create the fleet of rollout workers. `release(name, drained)` returns the leases of a worker that has ended."""

    def spawn(name: str) -> tuple[Handle[RolloutApi], Future[WorkerInfo]]:
        handle = cluster.rollout(name, use)
        return handle, handle.start(RolloutApi.start)

    config = cluster.config
    settings = FleetSettings(
        workers=config.rollout.workers if "rollout" in processes(config, use) else 0,
        max_workers=config.rollout.max_workers,
        restart_budget=config.recovery.max_worker_restarts,
        max_missed_syncs=config.recovery.max_missed_syncs,
        limits=health_limits(config),
        drain_s=config.deadlines.shutdown_s,
    )
    return Fleet(settings, spawn=spawn, release=release, on_event=on_event, host_ends=ray_session.drain_node)
