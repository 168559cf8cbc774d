"""Stores that listen on one address, and the sockets of a group that meets there."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from r1ray.errors import ConfigError
from r1ray.transport.rendezvous import join, listen
from r1ray.transport.store import listen_at, reach, serve
from r1ray.util.network import LOOPBACK, interface_of
from tests.sockets import listening

OTHER_LOOPBACK = "127.0.0.2"  # Linux gives the whole of 127/8 to the interface lo
NOT_HERE = "203.0.113.7"  # of a range for documentation


def listening_here() -> set[tuple[str, int]]:
    """(address, port) of each socket at which this process listens."""
    return {(address, port) for address, port, _ in listening([psutil.Process()])}


@pytest.mark.parametrize("address", [LOOPBACK, OTHER_LOOPBACK])
def test_a_store_listens_at_its_address_only(address: str) -> None:
    before = listening_here()
    store = serve(listen_at(address), address=address, timeout_s=20.0)
    assert listening_here() - before == {(address, store.port)}
    client = reach(address, store.port, timeout_s=20.0)
    client.set("key", "value")
    assert store.get("key") == b"value"
    del client, store
    assert listening_here() <= before, "the store closes the socket that it took over"


def test_a_store_waits_for_its_processes() -> None:
    with pytest.raises(RuntimeError, match="1/2 clients joined"):
        serve(listen_at(LOOPBACK), address=LOOPBACK, timeout_s=0.2, world_size=2)
    sock = listen_at(LOOPBACK)
    port = sock.getsockname()[1]
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(reach, LOOPBACK, port, timeout_s=20.0, world_size=2)
        store = serve(sock, address=LOOPBACK, timeout_s=20.0, world_size=2)
        store.set("key", "value")
        assert other.result(20.0).get("key") == b"value"


def test_an_address_that_is_not_of_this_machine_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=rf"cannot listen at {NOT_HERE}, .*--node-ip-address"):
        listen_at(NOT_HERE)
    with pytest.raises(ConfigError, match=rf"has the address {NOT_HERE}.*127\.0\.0\.1"):
        interface_of(NOT_HERE)


def test_a_port_that_is_taken_is_refused_by_name() -> None:
    with listen_at(LOOPBACK) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}: .*in use"):
            listen_at(LOOPBACK, port)


def test_a_weight_sync_group_listens_at_the_addresses_of_its_members_only() -> None:
    """The store and gloo's own sockets, of sender and receiver."""
    before = listening_here()
    opened = listen("gloo", address=OTHER_LOOPBACK, epoch=1, world_size=2, timeout_s=20.0)
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(join, opened.rendezvous, rank=1, host=LOOPBACK)
        ends = [opened.accept(), *joined.result(20.0).channels]
    new = listening_here() - before
    assert {address for address, _ in new} == {LOOPBACK, OTHER_LOOPBACK}
    assert (OTHER_LOOPBACK, opened.rendezvous.port) in new
    for end in ends:
        end.close()


def test_the_interface_of_an_address_is_found() -> None:
    assert interface_of(LOOPBACK) == "lo"
    for name, addresses in psutil.net_if_addrs().items():
        for entry in addresses:
            if entry.family == socket.AF_INET6 and "%" in entry.address:  # link-local, with the interface behind it
                assert interface_of(entry.address.partition("%")[0]) == name
