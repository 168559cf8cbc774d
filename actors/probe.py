"""Probe of one node: answers the checks of `r1ray doctor --cluster` and of the start of a run on a joined cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from r1ray.preflight.node import NodeReport, NodeRequest, inspect_node

if TYPE_CHECKING:  # transfers import torch, which takes seconds: the checks of a start do without
    from r1ray.transport.channel import Rendezvous
    from r1ray.transport.measure import Sender


class NodeProbe:
    """See `r1ray.control.handles.NodeApi`. One call at a time."""

    def __init__(self, address: str) -> None:
        """`address`: of this node, where the others reach it."""
        self._address = address
        self._sender: Sender | None = None

    def inspect(self, request: NodeRequest) -> NodeReport:
        """Check this node."""
        return inspect_node(request)

    def clock(self) -> float:
        """Seconds since the epoch by this node's clock."""
        return time.time()

    def listen(self, transport: str, timeout_s: float) -> Rendezvous:
        """Open the rendezvous of one transfer, for `send`."""
        from r1ray.transport.measure import Sender

        self._sender = Sender(transport, self._address, timeout_s)
        return self._sender.rendezvous

    def send(self, nbytes: int, interface: str | None) -> None:
        """Send to the process that comes to the rendezvous. Raises WeightSyncError."""
        assert self._sender is not None, "`listen` comes first"
        sender, self._sender = self._sender, None
        sender.send(nbytes, interface)

    def receive(self, rendezvous: Rendezvous, nbytes: int, interface: str | None) -> float:
        """Receive what `send` sends; returns the seconds. Raises WeightSyncError."""
        from r1ray.transport.measure import receive

        return receive(rendezvous, nbytes, interface=interface, host=self._address)
