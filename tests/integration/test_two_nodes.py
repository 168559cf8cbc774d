"""Two Ray nodes on one machine, with token authentication: the learner on the head, generation on the other.

Wrong starts are named before anything is created; `r1ray doctor --cluster` looks at both nodes.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1ray.errors import WorkersCannotStart
from r1ray.run.metrics import read_events, read_metrics
from tests.integration.models import random_model, write_model

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
HERE = Path(__file__).parent
RAY = str(Path(sys.executable).with_name("ray"))
SECRETS = ("RAY_AUTH_TOKEN", "OPENAI_API_KEY", "VLLM_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY")
"""Environment variables whose values no log may hold."""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """Address and environment of a cluster of a head and a worker node, each with a temporary folder of its own."""
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "OMP_NUM_THREADS": "1",
    }
    environment |= {"RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {name: secrets.token_hex(16) for name in SECRETS[1:]}
    port = free_port()
    address = f"127.0.0.1:{port}"
    common = ["--node-ip-address=127.0.0.1", "--num-cpus=4", "--object-store-memory=100000000", "--disable-usage-stats"]
    places = [
        [
            "--head",
            f"--port={port}",
            "--include-dashboard=false",
            "--resources",
            json.dumps({"learner": 1, "reward": 1}),
        ],
        [f"--address={address}", "--resources", json.dumps({"rollout": 1})],
    ]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for place in places:
            # Ray's sockets lie in its temporary folder, and their paths must be short.
            temp = Path("/tmp") / f"r1-{secrets.token_hex(3)}"
            command = [RAY, "start", "--block", *place, *common, f"--temp-dir={temp}"]
            started.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            wait_for_nodes(address, len(started), environment)
        yield address, environment
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=30)


def wait_for_nodes(address: str, nodes: int, environment: dict[str, str]) -> None:
    """Ask until the cluster has so many nodes; the asking process itself ends after 120 s."""
    program = (
        "import ray, sys, time\n"
        "end = time.monotonic() + 120\n"
        "while True:\n"
        "    try:\n"
        "        ray.init(address=sys.argv[1], log_to_driver=False, logging_level=50)\n"
        "        break\n"
        "    except Exception:\n"
        "        assert time.monotonic() < end, 'no cluster'\n"
        "        time.sleep(0.3)\n"
        "while sum(n['Alive'] for n in ray.nodes()) < int(sys.argv[2]):\n"
        "    assert time.monotonic() < end, ray.nodes()\n"
        "    time.sleep(0.2)\n"
    )
    subprocess.run([sys.executable, "-c", program, address, str(nodes)], env=environment, check=True, timeout=180)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(random_model(seed=2), tmp_path_factory.mktemp("model"))


def r1ray(
    environment: dict[str, str], command: list[str], address: str, model: Path, run: Path, *settings: str
) -> subprocess.CompletedProcess[str]:
    """A command on the configuration of these tests."""
    words = [
        *(str(HERE / "loop.yaml"), f"run.dir={run}", f"model.path={model}", f"ray.address={address}"),
        *("ray.learner_resources={learner: 1}", "ray.rollout_resources={rollout: 1}"),
        *("ray.reward_resources={reward: 1}", "run.steps=2", *settings),
    ]
    argv = [sys.executable, "-m", "r1ray", *command, *words]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=400, check=False)


def test_learner_and_rollouts_on_different_nodes(
    cluster: tuple[str, dict[str, str]], model: Path, tmp_path: Path
) -> None:
    address, environment = cluster
    run = tmp_path / "run"
    done = r1ray(environment, ["train"], address, model, run)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_metrics(run)
    assert [row["step"] for row in rows] == [0, 1]
    # Only the second node has the resource that a rollout worker requests, only the head the learner's.
    assert rows[-1]["sync/workers"] == 1
    for name in SECRETS:
        assert environment[name] not in done.stdout + done.stderr, name
        assert [path for path in files_of(run) if environment[name].encode() in path.read_bytes()] == [], name


def files_of(run: Path) -> list[Path]:
    """All files of a run: logs, events, configuration, ledger, checkpoints."""
    found = [path for path in run.rglob("*") if path.is_file()]
    assert any(path.suffix == ".log" for path in found)
    return found


def test_a_wrong_token_and_an_unreachable_head_are_named_and_nothing_is_written(
    cluster: tuple[str, dict[str, str]], model: Path, tmp_path: Path
) -> None:
    address, environment = cluster
    other = {**environment, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    refused = r1ray(other, ["train"], address, model, tmp_path / "run")
    assert (refused.returncode, "the cluster refuses this process" in refused.stderr) == (2, True), refused.stderr
    nowhere = r1ray(environment, ["train"], f"127.0.0.1:{free_port()}", model, tmp_path / "run")
    assert (nowhere.returncode, "no Ray cluster answers there" in nowhere.stderr) == (2, True), nowhere.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_node_on_which_every_worker_fails_ends_the_run_and_is_named_with_the_cause(
    cluster: tuple[str, dict[str, str]], model: Path, tmp_path: Path
) -> None:
    address, environment = cluster
    run = tmp_path / "run"
    wrong = "rollout.engine.extra.load_format=bitsandbyte"  # only the engine can refuse it
    done = r1ray(environment, ["train"], address, model, run, wrong)
    assert done.returncode == WorkersCannotStart.exit_code, done.stdout + done.stderr
    events = read_events(run)
    (connected,) = [event for event in events if event["kind"] == "connected"]
    node = connected["metrics"][0].rpartition(":")[0]  # both nodes have the address of this machine
    named = (
        f"WorkersCannotStart: no rollout worker can start: 3 attempts in a row failed on node {node} with EngineRefused"
    )
    assert named in done.stderr
    assert "bitsandbyte" in done.stderr
    reasons = [str(event["reason"]) for event in events if event["kind"] == "worker_lost"]
    assert [reason.endswith(f"(on node {node})") for reason in reasons] == [True] * 3


def test_doctor_looks_at_every_node_and_every_pair(
    cluster: tuple[str, dict[str, str]], model: Path, tmp_path: Path
) -> None:
    address, environment = cluster
    done = r1ray(environment, ["doctor", "--cluster", "--json"], address, model, tmp_path / "run")
    found = json.loads(done.stdout)
    assert (done.returncode, found["errors"]) == (0, 0), done.stdout + done.stderr
    checked = {what: {f["node"] for f in found["findings"] if f["what"] == what} for what in ("versions", "clock")}
    assert [len(nodes) for nodes in checked.values()] == [2, 2]
    assert [pair["gb_s"] > 0 for pair in found["pairs"]] == [True, True]
    details = [f["detail"] for f in found["findings"] if f["verdict"] == "ok"]
    assert "the cluster demands it" in details  # the token
    assert sum("is the driver's, and so are its locks" in detail for detail in details) == 2
