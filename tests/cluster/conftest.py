"""The cluster of the tests: a head and three worker hosts, started by `ray up` of the shipped on-premise file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import Host, hosts
from tests.cluster.operator import Operator, operator, wait_for

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
        ray_up(by)
        yield by, {host.name: host for host in made}


def ray_up(by: Operator) -> None:
    """Start the cluster and wait for all of its hosts."""
    by.run("ray", "up", "-y", "--no-config-cache", by.cluster_file)
    wait_for("all hosts", lambda: _all_joined(by), START_S, every_s=2.0)


def _all_joined(by: Operator) -> bool:
    """Whether the cluster counts the resources of every worker host."""
    status = by.on_head("ray status")
    return "/1.0 learner" in status and "/2.0 rollout" in status
