"""`ray up` of the shipped on-premise file on a head and three worker hosts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import Host, hosts, missing
from tests.cluster.operator import Operator, operator, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]
LACKS = missing()
OFFERS = {"gen1": '{"rollout": 1}', "gen2": '{"rollout": 1}', "train": '{"learner": 1}'}
START_S = 400.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """The file system that all hosts share. Not below /tmp, because Ray's sockets need short paths."""
    made = Path(tempfile.mkdtemp(prefix="r1-", dir="/var/tmp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def cluster(folder: Path) -> Iterator[tuple[Operator, dict[str, Host]]]:
    with hosts(["head", *OFFERS], folder) as made:
        by = operator(folder, made, OFFERS)
        by.run("ray", "up", "-y", "--no-config-cache", by.cluster_file)
        wait_for("all hosts", lambda: all_joined(by), START_S, every_s=2.0)
        yield by, {host.name: host for host in made}


def all_joined(by: Operator) -> bool:
    """Whether the cluster counts the resources of every worker host."""
    status = by.on_head("ray status")
    return "/1.0 learner" in status and "/2.0 rollout" in status


def has(host: Host, process: str) -> bool:
    return any(process in command for command in host.processes())


needs_hosts = pytest.mark.skipif(
    LACKS is not None, reason=f"this machine lacks {LACKS}, which hosts of namespaces need"
)


@needs_hosts
def test_every_host_joins_with_what_it_offers_and_the_head_stops(cluster: tuple[Operator, dict[str, Host]]) -> None:
    by, host = cluster
    status = by.on_head("ray status")
    for resource in ("/1.0 head", "/8.0 reward", "/2.0 rollout", "/1.0 learner"):
        assert resource in status
    assert all(has(each, "raylet") for each in host.values())
    by.run("ray", "down", "-y", by.cluster_file)
    assert not has(host["head"], "raylet")
