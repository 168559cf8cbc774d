"""Looks at the stacks of processes, on a fake Ray."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from r1ray.config.schema import Config
from r1ray.control.handles import Place
from r1ray.launch import cluster
from r1ray.launch.cluster import STACKS_S, Cluster

NODE = "a" * 56


def test_all_processes_share_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def remote(function: Any) -> Any:
        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=lambda pid: f"look at {pid}"))

    def wait(looks: Sequence[str], *, num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        assert num_returns == len(looks)
        waits.append(timeout)
        return [look for look in looks if look != "look at 2"], ["look at 2"]

    fake = SimpleNamespace(remote=remote, wait=wait, get=lambda look, timeout: f"stack by a {look}")
    monkeypatch.setattr(cluster, "ray", fake)
    made = Cluster(config=Config(), model_path="m", vocab_hash="v", run_dir="r", run_id="i")
    places: dict[str, Place] = {name: {"pid": pid, "node": NODE} for name, pid in (("a", 1), ("b", 2), ("c", 3))}
    assert made.stacks(places) == {
        "a": "stack by a look at 1",
        "b": f"no answer within {STACKS_S:g} s",
        "c": "stack by a look at 3",
    }
    assert waits == [STACKS_S]
    assert made.stacks({}) == {}
