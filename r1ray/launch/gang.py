"""Processes placed as one placement group: the nodes hold all ranks of a learner, or of an engine,
or none of them yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.handle import RayHandle
from r1ray.config.schema import Config
from r1ray.control.handles import Api, Handle

Rank = TypeVar("Rank")
Spawn = Callable[[int, PlacementGroupSchedulingStrategy], Handle[Rank]]


class GroupedHandle(RayHandle[Api]):
    """An actor in a placement group of its own, which ends with it."""

    def __init__(self, name: str, actor: Any, group: PlacementGroup) -> None:
        super().__init__(name, actor)
        self._group = group

    def kill(self) -> None:
        """End the actor, and with the group all processes that it has started there."""
        super().kill()
        remove_placement_group(self._group)


def engine_bundles(config: Config) -> list[dict[str, float]]:
    """What each process of an engine on several hosts takes of its node; the first also has the rollout worker's CPUs.

    vLLM wants one GPU per bundle. `ray.rollout_resources` are those of one host's processes together.
    """
    rollout, engine = config.rollout, config.rollout.engine
    shares = {name: n * engine.hosts / engine.tensor_parallel_size for name, n in config.ray.rollout_resources.items()}
    each = {name: amount for name, amount in {"GPU": rollout.num_gpus, **shares}.items() if amount}
    first = {**each, "CPU": rollout.num_cpus} if rollout.num_cpus else each
    return [first, *(dict(each) for _ in range(engine.tensor_parallel_size - 1))]


class PlacementGroupGang(Generic[Rank]):
    """`ranks` processes with the same `demand`, on as few nodes as possible; `spawn(rank, place)` starts one of them.

    Ray's autoscaler sees the demand of all ranks at once, so it launches their nodes together.
    """

    def __init__(self, ranks: int, demand: Mapping[str, float], spawn: Spawn[Rank]) -> None:
        self._spawn = spawn
        self._each = dict(demand) or {"CPU": 0.001}  # Ray refuses an empty bundle
        self._ranks = ranks
        self._group: PlacementGroup = placement_group([self._each] * ranks, strategy="PACK")
        self.reserved: Future[Any] = self._group.ready().future()

    def describe(self) -> str:
        """What is reserved, and what the cluster has at present: nothing is free if another run holds it."""
        has, free = ray.cluster_resources(), ray.available_resources()
        return (
            f"nodes for {self._ranks} learner rank{'s' if self._ranks > 1 else ''}, in one placement group, each with "
            f"{_text(self._each)}; the cluster has {_text({name: has.get(name, 0.0) for name in self._each})}, "
            f"of which {_text({name: free.get(name, 0.0) for name in self._each})} free"
        )

    def spawn(self, rank: int) -> Handle[Rank]:
        """Start rank `rank` in its part of the reservation."""
        return self._spawn(rank, PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=rank))

    def release(self) -> None:
        """Give the reservation back; Ray ends what still runs in it."""
        remove_placement_group(self._group)


def _text(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in resources.items())
