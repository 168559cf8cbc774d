"""Two Ray nodes and a driver on this machine, as child processes."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

START_S = 60.0
STOP_S = 30.0
RAY = str(Path(sys.executable).with_name("ray"))


class Machines:
    """A head and a worker node with one rollout worker each. Learner, queue and reward workers run on the head.

    Killing the worker node kills its raylet; killing the head kills all its processes. Only descendants
    of processes started here are frozen or killed.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        logs.mkdir(parents=True, exist_ok=True)
        # Ray puts sockets into its temporary folder, and socket paths must be short.
        self._temp = Path("/tmp") / f"chaos-{secrets.token_hex(3)}"  # noqa: S108
        self._environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        self._head: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None
        self._driver: subprocess.Popen[bytes] | None = None
        self.address = ""

    # -- start and stop -----------------------------------------------------------------------------------------

    def start_head(self) -> None:
        """Start a new, empty cluster at a new address. Raises TimeoutError if it does not listen within START_S."""
        port = _free_port()
        self.address = f"127.0.0.1:{port}"
        role = ["--head", f"--port={port}", "--include-dashboard=false", f"--ray-client-server-port={_free_port()}"]
        self._head = self._ray("head", *role, "--resources", json.dumps({"rollout": 1, "head": 100}))
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                return
            time.sleep(0.05)
        raise TimeoutError(f"no Ray head at {self.address} within {START_S:g} s; see {self._logs}/head.log")

    def start_node(self) -> None:
        """Start the worker node and wait until it has joined. Raises TimeoutError after START_S.

        `r1ray train` refuses to start on a cluster that has less than the run asks for.
        """
        self._node = self._ray("node", f"--address={self.address}", "--resources", json.dumps({"rollout": 1}))
        until = time.monotonic() + START_S
        status = [RAY, "status", f"--address={self.address}"]
        while time.monotonic() < until:
            said = subprocess.run(status, env=self._environment, capture_output=True, text=True, timeout=START_S)
            if "/2.0 rollout" in said.stdout:  # of both nodes
                return
        raise TimeoutError(f"no worker node joined {self.address} within {START_S:g} s; see {self._logs}/node.log")

    def _ray(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        common = ["--num-cpus=8", "--object-store-memory=100000000", "--disable-usage-stats"]
        command = [RAY, "start", "--block", *arguments, *common, f"--temp-dir={self._temp}-{name}"]
        return self._popen(name, command)

    def start_driver(self, *arguments: str | Path) -> None:
        """Start `r1ray train ...` on this cluster."""
        placement = [f"ray.{role}_resources={{head: 1}}" for role in ("learner", "reward", "queue")]
        settings = [f"ray.address={self.address}", "ray.rollout_resources={rollout: 1}", *placement]
        command = [sys.executable, "-m", "r1ray", "train", *map(str, arguments), *settings]
        self._driver = self._popen("driver", command)

    def _popen(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self._logs / f"{name}.log").open("ab") as log:
            log.write(f"\n--- {' '.join(command)}\n".encode())
            log.flush()
            return subprocess.Popen(command, env=self._environment, stdout=log, stderr=subprocess.STDOUT)

    def stop(self) -> None:
        """Kill all processes and remove Ray's temporary folders. Process logs remain in the run folder."""
        for place in (self._driver, self._node, self._head):
            if place is not None:
                kill(tree(place.pid))
                place.wait(STOP_S)
        for name in ("head", "node"):
            shutil.rmtree(f"{self._temp}-{name}", ignore_errors=True)  # a process that is ending may still write there

    # -- kills --------------------------------------------------------------------------------------------------

    def kill_driver(self) -> int:
        """Kill the driver and return its process id."""
        assert self._driver is not None
        self._driver.kill()
        self._driver.wait(STOP_S)
        return self._driver.pid

    def kill_node(self) -> int:
        """Kill only the worker node's raylet and return its process id; its workers must notice themselves."""
        assert self._node is not None
        (raylet,) = [p for p in tree(self._node.pid) if _name(p) == "raylet"]
        kill([raylet])
        return int(raylet.pid)

    def restart_node(self) -> None:
        """Kill what is left of the worker node and start it again, as an operator would."""
        assert self._node is not None
        kill(tree(self._node.pid))
        self._node.wait(STOP_S)
        self.start_node()

    def kill_head(self) -> int:
        """Kill all processes of the head (GCS, raylet, queue, learner, reward workers) and the driver at once."""
        assert self._head is not None
        assert self._driver is not None
        kill([*tree(self._head.pid), psutil.Process(self._driver.pid)])
        self._driver.wait(STOP_S)
        self._head.wait(STOP_S)
        return self._head.pid

    # -- processes ----------------------------------------------------------------------------------------------

    def driver_exit(self) -> int | None:
        """Return the exit code of the driver; None while it runs."""
        assert self._driver is not None
        return self._driver.poll()

    def actors(self, title: str) -> list[psutil.Process]:
        """Return the processes of the actor class `title` on both nodes."""
        places = [p.pid for p in (self._head, self._node) if p is not None]
        return [p for pid in places for p in tree(pid) if process_title(p).startswith(f"ray::{title}")]

    def owns(self, pid: int) -> bool:
        """Return whether `pid` is a running process of these nodes."""
        places = [p.pid for p in (self._head, self._node) if p is not None]
        return any(p.pid == pid for place in places for p in tree(place))


def tree(pid: int) -> list[psutil.Process]:
    """Return the process and its descendants, itself first; empty if it does not exist."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def kill(processes: Sequence[psutil.Process]) -> None:
    """Send SIGKILL to each. psutil refuses to signal a process that reused the id of an older one."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@contextmanager
def frozen(*processes: psutil.Process) -> Iterator[None]:
    """Freeze processes (SIGSTOP) inside the block, and continue those still alive after it."""
    try:
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


def _name(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return str(process.name())
    return ""


def process_title(process: psutil.Process) -> str:
    """Return the command line of a process; Ray's workers put the class of their actor there."""
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port
