"""The processes of a learner, placed as one placement group: the nodes hold all ranks, or none of them yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from r1ray.control.handles import Handle

Rank = TypeVar("Rank")
Spawn = Callable[[int, PlacementGroupSchedulingStrategy], Handle[Rank]]


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
        """What is reserved, and what the cluster has at present."""
        return (
            f"nodes for {self._ranks} learner rank{'s' if self._ranks > 1 else ''}, in one placement group, each with "
            f"{_text(self._each)}; the cluster has {_text({name: _in_cluster(name) for name in self._each})}"
        )

    def spawn(self, rank: int) -> Handle[Rank]:
        """Start rank `rank` in its part of the reservation."""
        return self._spawn(rank, PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=rank))

    def release(self) -> None:
        """Give the reservation back; Ray ends what still runs in it."""
        remove_placement_group(self._group)


def _in_cluster(name: str) -> float:
    return float(ray.cluster_resources().get(name, 0.0))


def _text(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in resources.items())
