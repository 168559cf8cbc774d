"""The operator's machine: `ray up` with conf/clusters/on-premise.yaml against hosts of namespaces,
and commands on the head.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from tests.cluster.hosts import Host

PROJECT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SHIPPED = PROJECT / "conf" / "clusters" / "on-premise.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Follower:
    """A command that prints as long as it runs."""

    process: subprocess.Popen[bytes]
    file: Path

    def said(self) -> str:
        """All that it has printed."""
        return self.file.read_text(errors="replace")

    def end(self, within_s: float) -> int:
        """Its exit code, once it has ended by itself."""
        return self.process.wait(within_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Runs commands with a home folder, a working tree and a token of its own."""

    folder: Path
    tree: Path  # what `ray up` and `r1ray submit` ship
    cluster_file: Path
    environment: dict[str, str]

    def run(self, *command: str | Path, timeout: float = 300.0, code: int = 0) -> str:
        """Output of a command in the working tree, run to its end. Fails the test if it ends with another exit code.

        If `code` is not 0, what it printed to standard error is part of the output.
        """
        done = subprocess.run(
            [str(word) for word in command],
            env=self.environment,
            cwd=self.tree,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout + (done.stderr if code else "")

    def on_head(self, command: str, timeout: float = 300.0) -> str:
        """Output of a shell command on the head, by `ray exec`."""
        return self.run("ray", "exec", self.cluster_file, command, timeout=timeout)

    @contextmanager
    def dashboard(self, deadline_s: float = 60.0) -> Iterator[str]:
        """The address of `ray dashboard`, the tunnel to the dashboard of the head, while it is open."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = ["ray", "dashboard", str(self.cluster_file), f"--port={port}", "--no-config-cache"]
        with self._beside(command, subprocess.DEVNULL):
            wait_for("the tunnel", lambda: _answers(port), deadline_s)
            yield f"http://127.0.0.1:{port}"

    @contextmanager
    def following(self, name: str, *words: str | Path) -> Iterator[Follower]:
        """A command of r1ray that runs beside the test, and is ended after it unless it has ended."""
        file = self.folder / f"{name}.txt"
        with file.open("wb") as out, self._beside([sys.executable, "-m", "r1ray", *map(str, words)], out) as process:
            yield Follower(process=process, file=file)

    @contextmanager
    def _beside(self, command: Sequence[str], out: IO[bytes] | int) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            command,
            env=self.environment,
            cwd=self.tree,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(60.0)

    def r1ray(self, address: str, *words: str | Path, code: int = 0) -> str:
        """Output of a command of r1ray that goes through the tunnel."""
        return self.run(sys.executable, "-m", "r1ray", *words, "--address", address, code=code)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0) as opened:
        opened.sendall(b"GET /api/version HTTP/1.0\r\n\r\n")
        return bool(opened.recv(1))
    return False


def operator(folder: Path, hosts: Sequence[Host], offers: dict[str, str]) -> Operator:
    """An operator whose cluster file is the shipped one with these hosts, the first of them the head.

    `offers`: Ray resources as JSON, by the name of a worker host. Installation is replaced by the running
    interpreter's. The operator works in a copy of the project, which a test may change.
    """
    home = folder / "laptop"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text(secrets.token_hex(32))
    cluster_file = folder / "cluster.yaml"
    cluster_file.write_text(yaml.safe_dump(_for_these_hosts(folder, hosts, offers)))
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RAY_ADDRESS")}
    environment |= {"HOME": str(home), "PATH": f"{BIN}:{environment['PATH']}", "RAY_AUTH_MODE": "token"}
    left_out = [f"--exclude={pattern}" for pattern in yaml.safe_load(SHIPPED.read_text())["rsync_exclude"]]
    tree = folder / "tree"
    subprocess.run(["rsync", "--archive", *left_out, f"{PROJECT}/", f"{tree}/"], check=True, timeout=60.0)
    return Operator(folder=folder, tree=tree, cluster_file=cluster_file, environment=environment)


def _for_these_hosts(folder: Path, hosts: Sequence[Host], offers: dict[str, str]) -> dict[str, Any]:
    cluster: dict[str, Any] = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    head, *workers = hosts
    cluster["provider"] |= {"head_ip": head.address, "worker_ips": [worker.address for worker in workers]}
    cluster["auth"] = {"ssh_user": "root", "ssh_private_key": str(folder / "key")}
    stop, start = cluster["worker_start_ray_commands"]
    lines = [f"""*" {host.address} "*) address={host.address}; offers='{offers[host.name]}' ;;""" for host in workers]
    before, _, after = start.partition(" in *")
    cluster["worker_start_ray_commands"] = [stop, f"{before} in {' '.join(lines)} *{after[after.index(') echo') :]}"]
    cluster["initialization_commands"] = []
    token, install, path = cluster["setup_commands"]
    assert "make install" in install
    link = f"ln -sfn {BIN.parent} ~/r1ray/.venv"
    own_code = "grep -q PYTHONPATH ~/.bashrc || echo 'export PYTHONPATH=$HOME/r1ray OMP_NUM_THREADS=1' >> ~/.bashrc"
    cluster["setup_commands"] = [token, link, path, own_code]
    return cluster


def wait_for(
    what: str, moment: Callable[[], bool], within_s: float, every_s: float = 0.2, also: Callable[[], str] = str
) -> float:
    """Seconds until `moment` holds. Fails after `within_s`, with the text of `also`."""
    began = time.monotonic()
    while not moment():
        assert time.monotonic() - began < within_s, f"waited {within_s:g} s for {what}\n{also()}"
        time.sleep(every_s)
    return time.monotonic() - began
