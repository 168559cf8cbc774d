"""On how many hosts the processes of an engine may be."""

from __future__ import annotations

import pytest

from actors.engine_places import ProcessPlace, check_spread
from r1ray.errors import InfrastructureError


def test_an_engine_on_more_hosts_than_planned_is_refused() -> None:
    places = [ProcessPlace(node=node, address="10.0.0.1") for node in "aabc"]
    check_spread(places, 3)
    check_spread(places, 4)
    with pytest.raises(InfrastructureError, match=r"4 processes of one engine over 3 hosts.*rollout\.engine\.hosts=3"):
        check_spread(places, 2)
