"""cluster.yaml against the schema of the installed Ray, and against the overlay that asks for its resources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from r1ray.config.load import load_config

CLUSTER = Path(__file__).parents[3] / "cluster.yaml"


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(CLUSTER.read_text(encoding="utf-8"))
    return loaded


def test_ray_accepts_it(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(cluster))


def test_every_resource_that_the_overlay_asks_for_is_offered_by_one_kind_of_node(cluster: dict[str, Any]) -> None:
    ray = load_config(["models/qwen2.5-7b", "clusters/ray"]).config.ray
    offered = {kind: node["resources"] for kind, node in cluster["available_node_types"].items()}
    for kind, asked in (
        ("rollout", ray.rollout_resources),
        ("learner", ray.learner_resources),
        ("reward", ray.reward_resources),
        ("head", ray.queue_resources),
    ):
        assert list(asked) == [kind]
        assert [name for name, resources in offered.items() if kind in resources] == [kind]
        assert offered[kind][kind] >= asked[kind]


def test_a_node_has_a_gpu_for_each_actor_it_offers_to_hold(cluster: dict[str, Any]) -> None:
    for kind in ("rollout", "learner"):
        resources = cluster["available_node_types"][kind]["resources"]
        assert resources["GPU"] == resources[kind]


def test_the_token_is_required_and_the_dashboard_is_on_loopback(cluster: dict[str, Any]) -> None:
    starts = [c for kind in ("head", "worker") for c in cluster[f"{kind}_start_ray_commands"] if "ray start" in c]
    assert len(starts) == 2
    assert all(command.startswith(". ~/.r1ray_env;") for command in starts)  # which sets RAY_AUTH_MODE=token
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
