"""Which process of an engine stages weights for its host."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.engine_places import ProcessPlace, check_spread, stages
from r1ray.errors import InfrastructureError


def test_the_first_process_of_each_host_writes_and_all_of_a_host_share_a_file() -> None:
    found = stages(Path("/dev/shm"), "w-1", ["a", "a", "b", "b"])
    assert found == [
        ("/dev/shm/w-1-0", True),
        ("/dev/shm/w-1-0", False),
        ("/dev/shm/w-1-1", True),
        ("/dev/shm/w-1-1", False),
    ]
    assert stages(Path("/x"), "w", ["", ""]) == [("/x/w-0", True), ("/x/w-0", False)]


def test_an_engine_on_more_hosts_than_planned_is_refused() -> None:
    places = [ProcessPlace(node=node, address="10.0.0.1") for node in "aabc"]
    check_spread(places, 3)
    check_spread(places, 4)
    with pytest.raises(InfrastructureError, match=r"4 processes of one engine over 3 hosts.*rollout\.engine\.hosts=3"):
        check_spread(places, 2)
