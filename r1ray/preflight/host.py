"""Checks of the operating system: limits of processes, the sandbox, Ray's token, ports."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

from r1ray.errors import ConfigError
from r1ray.preflight.doors import DOORS
from r1ray.preflight.findings import Finding, error, ok, warning
from r1ray.preflight.system import System

LEAST_FILES = 4096
ADVISED_FILES = 65536
LEAST_PROCESSES = 4096
LEAST_PORTS = 10_000
"""Ephemeral ports: Ray's workers, gloo and the weight-sync groups of every epoch take theirs from them."""
LOOPBACK = ("127.", "::1", "::ffff:127.")
_SYSCTL = {
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
    "kernel.unprivileged_userns_clone": ("0", "1"),
    "user.max_user_namespaces": ("0", "15000"),
}
"""Kernel setting -> (the value that forbids bubblewrap, a value that allows it)."""
_CONTAINERS = ("/.dockerenv", "/run/.containerenv")


def limits(system: System) -> Iterator[Finding]:
    """Check `ulimit -n`, `-u`, and with GPUs `-l`."""
    soft, hard = system.limit(resource.RLIMIT_NOFILE)
    detail = f"{_number(soft)} (ulimit -n), at most {_number(hard)}"
    if _below(soft, LEAST_FILES):
        meaning = f"Ray and gloo open thousands of sockets; below {LEAST_FILES} they fail with `Too many open files`"
        yield error("open files", detail, meaning=meaning, fix=_raise("nofile", ADVISED_FILES, "n"))
    elif _below(soft, ADVISED_FILES):
        meaning = "enough for one machine; large clusters need more on the head"
        yield warning("open files", detail, meaning=meaning, fix=_raise("nofile", ADVISED_FILES, "n"))
    else:
        yield ok("open files", detail)
    soft, _ = system.limit(resource.RLIMIT_NPROC)
    if _below(soft, LEAST_PROCESSES):
        meaning = "threads count too: vLLM, Ray and the verifiers start hundreds per process"
        yield warning("processes", f"{soft} (ulimit -u)", meaning=meaning, fix=_raise("nproc", ADVISED_FILES, "u"))
    else:
        yield ok("processes", f"{_number(soft)} (ulimit -u)")
    soft, _ = system.limit(resource.RLIMIT_MEMLOCK)
    if system.machine.gpus and soft != resource.RLIM_INFINITY:
        meaning = "NCCL over InfiniBand or EFA pins memory, and fails at this limit"
        fix = "`* - memlock unlimited` in /etc/security/limits.conf; docker run --ulimit memlock=-1"
        yield warning("locked memory", f"{soft >> 10} KiB (ulimit -l)", meaning=meaning, fix=fix)


def sandbox(system: System, *, needed: bool | None = None) -> Finding:
    """Check that a program runs in the sandbox; names the kernel setting that forbids it.

    `needed`: whether a reward of the run uses it; None: not known.
    """
    try:
        system.sandbox()
    except ConfigError as e:
        verdict = error if needed else warning
        meaning = "rewards that run a model's programs (code) are refused"
        return verdict("sandbox", str(e).partition(". ")[0], meaning=meaning, fix=_sandbox_fix(system, str(e)))
    return ok("sandbox", "a program runs in bubblewrap")


def _sandbox_fix(system: System, message: str) -> str:
    if "not installed" in message:
        return "apt-get install bubblewrap"
    if "Unknown option" in message:  # --disable-userns came with 0.8
        return "install bubblewrap 0.8 or newer"
    for name, (forbids, allows) in _SYSCTL.items():
        if system.text(f"/proc/sys/{name.replace('.', '/')}") == forbids:
            profile = ", or load an AppArmor profile for bwrap that has `userns`" if "apparmor" in name else ""
            return f"{name} is {forbids}: `sysctl -w {name}={allows}`, and the same line in /etc/sysctl.d/{profile}"
    if any(system.text(path) is not None for path in _CONTAINERS):
        return "this is a container: start it with a seccomp profile that allows clone and unshare"
    return "see what `bwrap --unshare-all --ro-bind / / true` says"


def token(system: System, *, joins: bool) -> Iterator[Finding]:
    """Check how this process presents Ray's token, and that no other user can read it. The token is never shown.

    `joins`: whether the run joins a cluster (`ray.address`); Ray makes a token for a cluster of its own.
    """
    environment = system.environment
    file = Path(environment.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    given = "RAY_AUTH_TOKEN" in environment
    if environment.get("RAY_AUTH_MODE") == "token" and not given and not file.is_file():
        meaning = "Ray refuses to start or to join a cluster"
        fix = "`ray get-auth-token --generate` once, and the same token on every node"
        yield error("token", f"RAY_AUTH_MODE is token, but {file} does not exist", meaning=meaning, fix=fix)
        return
    if joins and environment.get("RAY_AUTH_MODE") != "token":
        meaning = "a cluster that demands a token refuses this process"
        yield warning("token", "RAY_AUTH_MODE is not token", meaning=meaning, fix="export RAY_AUTH_MODE=token")
    elif given:
        yield ok("token", "in RAY_AUTH_TOKEN")
    elif file.is_file():
        yield ok("token", f"in {file}")
    else:
        yield ok("token", "none; Ray makes one for a cluster of its own")
    if not given and file.is_file() and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = f"{file.stat().st_mode & 0o777:o}"
        meaning = "other users of this machine can read the token, and run programs on the cluster with it"
        yield warning("token", f"{file} has mode {mode}", meaning=meaning, fix=f"chmod 600 {file}")


def ports(system: System) -> Iterator[Finding]:
    """Check the range of ephemeral ports, and that the doors of Ray are on loopback or demand the token."""
    low, high = map(int, (system.text("/proc/sys/net/ipv4/ip_local_port_range") or "32768 60999").split())
    detail = f"{low} to {high} for connections between processes and nodes"
    if high - low + 1 < LEAST_PORTS:
        meaning = "Ray, gloo and NCCL may run out of ports"
        yield warning("ports", detail, meaning=meaning, fix="sysctl -w net.ipv4.ip_local_port_range='32768 60999'")
    else:
        yield ok("ports", detail)
    for address, port in system.listening():
        if port in DOORS and not address.startswith(LOOPBACK):
            yield _open_door(system, address, port)


def _open_door(system: System, address: str, port: int) -> Finding:
    where = f"{address}:{port} ({DOORS[port]}) listens to other machines"
    refuses = system.refuses_strangers(address, port)
    if refuses:
        return ok("ports", f"{where} and demands the token")
    if refuses is None:
        said, meaning = "and did not answer a request without a token", "it may answer others, who could run programs"
    else:
        said, meaning = "and answers without a token", "any host that reaches this port can run programs on the cluster"
    fix = "RAY_AUTH_MODE=token on every node; ray start --dashboard-host=127.0.0.1 for the dashboard"
    return warning("ports", f"{where} {said}", meaning=meaning, fix=fix)


def _below(soft: int, least: int) -> bool:
    return soft != resource.RLIM_INFINITY and soft < least


def _number(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


def _raise(name: str, value: int, option: str) -> str:
    user = os.environ.get("USER", "*")
    return (
        f"`ulimit -{option} {value}` before `ray start`; "
        f"lasting: `{user} - {name} {value}` in /etc/security/limits.conf"
    )
