"""Two Ray nodes on this machine, and a driver, each made of processes of ours alone."""

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
    """A head and a worker node, each with room for one rollout worker; the learner, the queue and the rewards need the head.

    The worker node dies with its raylet; the head with all its processes. Every process looked for, stopped or killed is
    a descendant of one that was started here.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        logs.mkdir(parents=True, exist_ok=True)
        # Ray's sockets lie in its temporary folder, and their paths must be short.
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
        """A new, empty cluster under a new address."""
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
        """The worker node; it joins the head by itself, in a few seconds."""
        self._node = self._ray("node", f"--address={self.address}", "--resources", json.dumps({"rollout": 1}))

    def _ray(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        common = ["--num-cpus=8", "--object-store-memory=100000000", "--disable-usage-stats"]
        command = [RAY, "start", "--block", *arguments, *common, f"--temp-dir={self._temp}-{name}"]
        return self._popen(name, command)

    def start_driver(self, *arguments: str | Path) -> None:
        """`r1ray train ...` on these machines."""
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
        """Kill whatever is left, and remove Ray's temporary folders; what the processes printed is in the run folder."""
        for place in (self._driver, self._node, self._head):
            if place is not None:
                kill(tree(place.pid))
                place.wait(STOP_S)
        for name in ("head", "node"):
            shutil.rmtree(f"{self._temp}-{name}", ignore_errors=True)  # a dying process may still write there

    # -- deaths -------------------------------------------------------------------------------------------------

    def kill_driver(self) -> int:
        assert self._driver is not None
        self._driver.kill()
        self._driver.wait(STOP_S)
        return self._driver.pid

    def kill_node(self) -> int:
        """SIGKILL to the worker node's raylet, and to nothing else: its workers are left to notice."""
        assert self._node is not None
        (raylet,) = [p for p in tree(self._node.pid) if _name(p) == "raylet"]
        kill([raylet])
        return int(raylet.pid)

    def restart_node(self) -> None:
        """What an operator does with a machine that is gone: clear it, start it again."""
        assert self._node is not None
        kill(tree(self._node.pid))
        self._node.wait(STOP_S)
        self.start_node()

    def kill_head(self) -> int:
        """SIGKILL to everything on the head, GCS, raylet, queue, learner, rewards, and to the driver, all at once."""
        assert self._head is not None
        assert self._driver is not None
        kill([*tree(self._head.pid), psutil.Process(self._driver.pid)])
        self._driver.wait(STOP_S)
        self._head.wait(STOP_S)
        return self._head.pid

    # -- what runs ----------------------------------------------------------------------------------------------

    def driver_exit(self) -> int | None:
        """The exit code of the driver, None while it lives."""
        assert self._driver is not None
        return self._driver.poll()

    def actors(self, title: str) -> list[psutil.Process]:
        """Processes of the actor class `title` on both nodes."""
        places = [p.pid for p in (self._head, self._node) if p is not None]
        return [p for pid in places for p in tree(pid) if process_title(p).startswith(f"ray::{title}")]

    def owns(self, pid: int) -> bool:
        """Whether `pid` is a living process of these nodes."""
        places = [p.pid for p in (self._head, self._node) if p is not None]
        return any(p.pid == pid for place in places for p in tree(place))


def tree(pid: int) -> list[psutil.Process]:
    """The process and its descendants, itself first; those that end meanwhile are left out."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def kill(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL to each; psutil refuses to signal a process that took over the number of an older one."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@contextmanager
def frozen(*processes: psutil.Process) -> Iterator[None]:
    """Hold processes still within the block; those that are alive behind it go on."""
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
    """What the process calls itself; Ray's workers put the class of their actor there."""
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port
