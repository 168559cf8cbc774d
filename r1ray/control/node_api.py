"""What the checks of a cluster's nodes may call on the probe of each node; see `r1ray.control.handles`."""

from __future__ import annotations

from typing import Protocol

from r1ray.preflight.node import NodeReport, NodeRequest
from r1ray.transport.channel import Rendezvous


class NodeApi(Protocol):
    """A probe of one node of the cluster (`actors.probe.NodeProbe`)."""

    def inspect(self, request: NodeRequest) -> NodeReport:
        """Check the node."""
        ...

    def clock(self) -> float:
        """Seconds since the epoch by the node's clock."""
        ...

    def listen(self, transport: str, timeout_s: float) -> Rendezvous:
        """Open the rendezvous of one transfer, for `send`."""
        ...

    def send(self, nbytes: int, interface: str | None) -> None:
        """Send to the process that comes to the rendezvous. Raises WeightSyncError."""
        ...

    def receive(self, rendezvous: Rendezvous, nbytes: int, interface: str | None) -> float:
        """Receive what `send` sends; returns the seconds. Raises WeightSyncError."""
        ...
