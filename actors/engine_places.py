"""Where the processes of an engine run: which of them stages weights for its host, and at which address each listens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r1ray.errors import InfrastructureError

Stage = tuple[str, bool]
"""File in shared memory, and whether this process writes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPlace:
    """Where one process of an engine is. Producer: `ReceiverExtension.place`."""

    node: str  # Ray's id of its host
    address: str  # at which other hosts reach it


def stages(folder: Path, name: str, nodes: Sequence[str]) -> list[Stage]:
    """A file for each host, by the hosts of all processes in the order of their ranks: the first one of each writes."""
    hosts = list(dict.fromkeys(nodes))
    return [(str(folder / f"{name}-{hosts.index(node)}"), nodes.index(node) == rank) for rank, node in enumerate(nodes)]


def check_spread(places: Sequence[ProcessPlace], hosts: int) -> None:
    """Raise InfrastructureError if Ray placed the processes of an engine on more hosts than planned.

    Another attempt may find whole hosts; on more of them every layer would wait for more networks.
    """
    used = {place.node for place in places}
    if len(used) > hosts:
        raise InfrastructureError(
            f"Ray spread the {len(places)} processes of one engine over {len(used)} hosts, expected "
            f"rollout.engine.hosts = {hosts}: free whole hosts for it, or set rollout.engine.hosts={len(used)}"
        )
