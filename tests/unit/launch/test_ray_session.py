"""What a run refuses before it joins a Ray cluster, and that a cluster of its own is its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc
from ray.exceptions import AuthenticationError

from r1ray.errors import ConfigError, InfrastructureError
from r1ray.launch import ray_session
from r1ray.launch.ray_session import connect, demands_token, look_at
from r1ray.telemetry.logs import LogTarget

TOKEN = "5a" * 32


class Head(gcs_service_pb2_grpc.NodeInfoGcsServiceServicer):  # type: ignore[misc]
    """The head of a cluster, as far as one request goes: it wants the token `TOKEN`, and one of its nodes is dead."""

    launched_as = ""
    demands = True

    def GetAllNodeInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        if self.demands and ("authorization", f"Bearer {TOKEN}") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken: missing or incorrect")
        reply = gcs_service_pb2.GetAllNodeInfoReply()
        for state, resources in (
            ("ALIVE", {"CPU": 4.0, "learner": 1.0}),
            ("ALIVE", {"CPU": 8.0}),
            ("DEAD", {"CPU": 64.0}),
        ):
            node = reply.node_info_list.add(state=state, node_type_name=self.launched_as)
            node.resources_total.update(resources)
        return reply


@pytest.fixture
def head() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server(Head(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait(5.0)


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A process whose environment says nothing of Ray."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    _read_again()
    yield
    monkeypatch.undo()
    _read_again()


def _read_again() -> None:
    """Ray keeps what it has read from the environment."""
    from ray._raylet import AuthenticationTokenLoader, Config

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _with(monkeypatch: pytest.MonkeyPatch, **environment: str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    _read_again()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, r"the cluster refuses this process: InvalidAuthToken: .*set RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_MODE": "token"}, r"couldn't find an authentication token; set RAY_AUTH_MODE=token"),
        (
            {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "6b" * 32},
            r"the cluster refuses this process: InvalidAuthToken",
        ),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/nowhere/token"}, r"/nowhere/token.*; set RAY_AUTH_MODE"),
    ],
)
def test_a_cluster_that_wants_another_token_is_named_at_once(
    head: str,
    environment: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    _with(monkeypatch, **environment)
    began = time.monotonic()
    with pytest.raises(ConfigError, match=message):
        look_at(head)
    assert time.monotonic() - began < 3.0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("launched_as", "autoscaled"), [("", False), ("rollout", True), ("local.cluster.node", False)])
def test_a_cluster_that_accepts_the_token_tells_its_nodes(
    head: str, launched_as: str, autoscaled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with(monkeypatch, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
    monkeypatch.setattr(Head, "launched_as", launched_as)
    found = look_at(head)
    assert found.nodes == ({"CPU": 4.0, "learner": 1.0}, {"CPU": 8.0})
    assert (found.total["CPU"], found.autoscaled) == (12.0, autoscaled)


def test_whether_a_cluster_demands_a_token(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _with(monkeypatch, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
    assert demands_token(head)
    monkeypatch.setattr(Head, "demands", False)
    assert demands_token(head) is False
    assert demands_token("127.0.0.1:1") is None  # nothing answers there


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", r"no Ray cluster answers there \(UNAVAILABLE"),
        ("ray://127.0.0.1:10001", "expected host:port"),
        ("head", "expected host:port"),
        ("head:port", "expected host:port"),
    ],
)
def test_an_address_without_a_cluster_is_refused(address: str, message: str) -> None:
    began = time.monotonic()
    with pytest.raises(ConfigError, match=f"ray.address = '{address}'.*{message}"):
        look_at(address)
    assert time.monotonic() - began < 3.0


def test_auto_names_the_cluster_that_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where Ray was stopped without `ray stop`: its address is still in its file."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"ray.address = 'auto' \(here [\d.]+:1\): no Ray cluster answers"):
        look_at("auto")


def log(folder: Path, *, as_json: bool = False) -> LogTarget:
    return LogTarget(path=folder / "ray.log", run_id="r", actor="ray", as_json=as_json)


class Init:
    """Takes the place of `ray.init`."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.options: dict[str, Any] = {}

    def __call__(self, **options: Any) -> None:
        self.options = options
        if self.error is not None:
            raise self.error


def test_a_cluster_of_its_own_is_never_one_that_runs_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    init = Init()
    monkeypatch.setattr(ray_session.ray, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    connect(None, log(tmp_path), num_cpus=3)
    assert (init.options["address"], init.options["num_cpus"]) == ("local", 3)
    assert init.options["_node_ip_address"] == "127.0.0.1"
    connect("127.0.0.1:7000", log(tmp_path), num_cpus=3)
    assert init.options["address"] == "127.0.0.1:7000"
    assert not {"num_cpus", "_node_ip_address"} & init.options.keys()


@pytest.mark.parametrize(
    ("raised", "named"),
    [
        (AuthenticationError("no token was found"), ConfigError),
        (ConnectionError("Failed to connect"), InfrastructureError),
        (Exception("The current node timed out during startup. This could happen"), InfrastructureError),
        (Exception("something else"), Exception),
        (RuntimeError("No node info found"), InfrastructureError),
        (RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n"), ConfigError),
    ],
)
def test_what_ray_raises_has_a_name(
    raised: Exception, named: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ray, "init", Init(raised))
    named_as = (
        r"no token was found; set RAY_AUTH_MODE|cannot be joined: (Failed|No node)|within 30 s .* less busy|^something"
        r"|Ray: 2.59.0; install the same"
    )
    with pytest.raises(named, match=named_as):
        connect("127.0.0.1:7000", log(tmp_path))
