"""Where the processes of an engine run: on which hosts, and at which address each listens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from r1ray.errors import InfrastructureError


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPlace:
    """Where one process of an engine is. Producer: `ReceiverExtension.place`."""

    node: str  # Ray's id of its host
    address: str  # at which other hosts reach it


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
