"""Hosts made of Linux namespaces on one machine: own network, processes, home, /tmp and host name;
a common file system.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BRIDGE = "r1ray0"
LAPTOP = "10.77.0.254"
"""Address of the bridge, where the operator sits: the machine's own network namespace."""
SSHD = "/usr/sbin/sshd"


def missing() -> str | None:
    """What this machine lacks to make hosts, or None."""
    if os.geteuid() != 0:
        return "root"
    for program in ("ip", "unshare", "nsenter", "ssh-keygen", "rsync", SSHD):
        if shutil.which(program) is None:
            return program
    probe = subprocess.run(["ip", "netns", "add", "r1ray-probe"], capture_output=True, text=True, check=False)
    if probe.returncode:
        return f"network namespaces ({probe.stderr.strip()})"
    _run("ip", "netns", "del", "r1ray-probe")
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One host. `init` is the pid of its first process: when that ends, the kernel ends all others of the host."""

    name: str
    address: str
    folder: Path
    init: int
    entered: subprocess.Popen[bytes]  # the program that made the namespaces and waits for `init`

    def processes(self) -> list[str]:
        """Command lines of all processes of the host except its first and sshd."""
        lines = self.inside("ps", "-ww", "-eo", "pid=,args=").splitlines()
        commands = [line.split(maxsplit=1) for line in lines if line.strip()]
        return [args for pid, args in commands if pid != "1" and "sshd" not in args and not args.startswith("ps ")]

    def inside(self, *command: str) -> str:
        """Output of a command in the host, without going through sshd."""
        enter = ["nsenter", "--target", str(self.init), "--pid", "--mount", "--", *command]
        return subprocess.run(enter, capture_output=True, text=True, timeout=20, check=False).stdout

    def crash(self) -> None:
        """Kill every process but the first, which is sshd: the host is there and nothing of Ray is left."""
        self.inside("/bin/sh", "-c", "kill -9 -1")

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Nothing from or to the host arrives meanwhile."""
        _run("ip", "link", "set", f"veth-{self.name}", "down")
        try:
            yield
        finally:
            _run("ip", "link", "set", f"veth-{self.name}", "up")


@contextmanager
def hosts(names: Sequence[str], folder: Path) -> Iterator[list[Host]]:
    """Hosts 10.77.0.1, .2, ... on a bridge, each with an sshd that takes the key `folder/key`.

    All are gone at the end.
    """
    _remove(names)
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key"))
    _run("ip", "link", "add", BRIDGE, "type", "bridge")
    _run("ip", "addr", "add", f"{LAPTOP}/24", "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")
    lines = [f"10.77.0.{number} {name}" for number, name in enumerate(names, start=1)]
    (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines]) + "\n")
    (folder / "resolv.conf").write_text(
        "nameserver 127.0.0.1\n"
    )  # refuses at once; one out of reach costs 10 s a lookup
    made: list[Host] = []
    try:
        for number, name in enumerate(names, start=1):
            made.append(_host(name, f"10.77.0.{number}", folder))
        for host in made:
            _wait_for_sshd(host)
        yield made
    finally:
        for host in made:
            with suppress(ProcessLookupError):
                os.kill(host.init, signal.SIGKILL)
            host.entered.wait(30.0)
        _remove(names)


def _host(name: str, address: str, folder: Path) -> Host:
    own = folder / name
    for part in ("home", "ray", "ssh"):
        (own / part).mkdir(parents=True)
    accounts = Path("/etc/passwd").read_text()
    (own / "passwd").write_text(re.sub(r"^(root:.*):/root:", r"\1:/home:", accounts, flags=re.MULTILINE))
    Path("/tmp/ray").mkdir(exist_ok=True)
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd's folder for its unprivileged part
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(own / "ssh" / "host_key"))
    (own / "ssh" / "authorized_keys").write_text((folder / "key.pub").read_text())
    _run("ip", "netns", "add", name)
    _run("ip", "link", "add", f"veth-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
    _run("ip", "link", "set", f"veth-{name}", "master", BRIDGE, "up")
    for command in (
        f"addr add {address}/24 dev eth0",
        "link set eth0 up",
        "link set lo up",
        f"route add default via {LAPTOP}",
    ):
        _run("ip", "-n", name, *command.split())
    start = f"""
        set -e
        hostname {name}
        mount -t proc proc /proc
        mount -t tmpfs tmpfs /dev/shm
        mount --bind {own}/home /home
        mount --bind {own}/ray /tmp/ray
        mount --bind {own}/passwd /etc/passwd
        mount --bind {folder}/hosts /etc/hosts
        mount --bind {folder}/resolv.conf /etc/resolv.conf
        exec {SSHD} -D -e -f /dev/null -h {own}/ssh/host_key -o AuthorizedKeysFile={own}/ssh/authorized_keys \\
            -o StrictModes=no -o PidFile=none -o UsePAM=no -o PermitRootLogin=yes -o MaxStartups=100
    """
    with (own / "sshd.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "ip",
                "netns",
                "exec",
                name,
                "unshare",
                "--pid",
                "--fork",
                "--uts",
                "--ipc",
                "--mount",
                "--kill-child",
                "sh",
                "-c",
                start,
            ],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return Host(name=name, address=address, folder=own, init=_child(process.pid), entered=process)


def _child(pid: int, deadline_s: float = 10.0) -> int:
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.01)
    raise AssertionError(f"the first process of a host did not start within {deadline_s:g} s")


def _wait_for_sshd(host: Host, deadline_s: float = 20.0) -> None:
    import socket

    until = time.monotonic() + deadline_s
    while True:
        with suppress(OSError), socket.create_connection((host.address, 22), timeout=1.0):
            return
        assert time.monotonic() < until, (host.folder / "sshd.log").read_text()
        time.sleep(0.05)


def _remove(names: Sequence[str]) -> None:
    for name in names:
        left = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout.split()
        for pid in left:  # of a test that was killed
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", f"veth-{name}"], capture_output=True, check=False)
    subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True, check=False)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20)
