"""A measured transfer through rendezvous and gloo group, between two threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from actors.probe import NodeProbe
from r1ray.errors import WeightSyncError


def test_a_probe_sends_and_another_receives() -> None:
    sender, receiver = NodeProbe("127.0.0.1"), NodeProbe("127.0.0.1")
    rendezvous = sender.listen("gloo", 20.0)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(sender.send, 1 << 20, None)
        assert receiver.receive(rendezvous, 1 << 20, None) > 0
        sent.result(20.0)


def test_a_receiver_that_never_comes_costs_the_deadline() -> None:
    sender = NodeProbe("127.0.0.1")
    sender.listen("gloo", 0.05)
    with pytest.raises(WeightSyncError, match=r"did not report within 0\.05 s"):
        sender.send(1024, None)
