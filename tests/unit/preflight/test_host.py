"""Checks of limits, sandbox, token and ports."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from r1ray.errors import ConfigError
from r1ray.preflight.host import limits, ports, sandbox, token
from tests.unit.preflight.doctor_support import GPU_ROW, healthy

UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("which", "value", "what", "verdict"),
    [
        (resource.RLIMIT_NOFILE, 1024, "open files", "error"),
        (resource.RLIMIT_NOFILE, 20000, "open files", "warning"),
        (resource.RLIMIT_NOFILE, UNLIMITED, "open files", "ok"),
        (resource.RLIMIT_NPROC, 512, "processes", "warning"),
        (resource.RLIMIT_NPROC, UNLIMITED, "processes", "ok"),
    ],
)
def test_limits_of_processes(which: int, value: int, what: str, verdict: str) -> None:
    assert {f.verdict for f in limits(healthy())} == {"ok"}
    (found,) = [f for f in limits(healthy(limits={which: value})) if f.what == what]
    assert found.verdict == verdict
    assert verdict == "ok" or "ulimit -" in found.fix


def test_locked_memory_matters_with_gpus_only() -> None:
    assert "locked memory" not in {f.what for f in limits(healthy())}
    gpu = healthy("gpu", gpus=[GPU_ROW])
    assert [f.detail for f in limits(gpu) if f.what == "locked memory"] == ["8192 KiB (ulimit -l)"]
    free = healthy("gpu", gpus=[GPU_ROW], limits={resource.RLIMIT_MEMLOCK: UNLIMITED})
    assert "locked memory" not in {f.what for f in limits(free)}


def refusing(message: str) -> Callable[[], None]:
    def check() -> None:
        raise ConfigError(message)

    return check


NO_RIGHTS = (
    "the sandbox bubblewrap does not work on this machine: bwrap: setting up uid map: Permission denied. Allow them"
)


@pytest.mark.parametrize(
    ("message", "texts", "fix"),
    [
        ("bubblewrap, the sandbox of programs, is not installed: install it", {}, "apt-get install bubblewrap"),
        ("the sandbox does not work: bwrap: Unknown option --disable-userns. Old", {}, "0.8 or newer"),
        (
            NO_RIGHTS,
            {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"},
            "kernel.apparmor_restrict_unprivileged_userns is 1: `sysctl -w "
            "kernel.apparmor_restrict_unprivileged_userns=0`",
        ),
        (NO_RIGHTS, {"/proc/sys/kernel/unprivileged_userns_clone": "0"}, "kernel.unprivileged_userns_clone is 0"),
        (NO_RIGHTS, {"/proc/sys/user/max_user_namespaces": "0"}, "user.max_user_namespaces is 0"),
        (NO_RIGHTS, {"/.dockerenv": ""}, "seccomp profile"),
        (NO_RIGHTS, {}, "bwrap --unshare-all"),
    ],
)
def test_a_sandbox_that_does_not_start_is_named_with_its_cause(message: str, texts: dict[str, str], fix: str) -> None:
    system = healthy(texts=texts, sandbox=refusing(message))
    found = sandbox(system)
    assert (found.verdict, fix in found.fix) == ("warning", True), found.fix
    assert sandbox(system, needed=True).verdict == "error"
    assert sandbox(healthy(), needed=True).verdict == "ok"


def test_a_token_that_is_missing_or_that_others_can_read_is_named_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "auth_token"
    given = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}
    (missing,) = token(healthy(environment=given), joins=True)
    assert (missing.verdict, str(file) in missing.detail) == ("error", True)
    file.write_text("marked-token")
    file.chmod(0o644)
    there, readable = token(healthy(environment=given), joins=True)
    assert (there.verdict, readable.verdict, readable.fix) == ("ok", "warning", f"chmod 600 {file}")
    file.chmod(0o600)
    (private,) = token(healthy(environment=given), joins=True)
    assert private.verdict == "ok"
    (inline,) = token(healthy(environment={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "marked-token"}), joins=True)
    assert inline.verdict == "ok"
    assert not any("marked-token" in f.line() for f in (missing, there, readable, private, inline))


def test_a_process_that_joins_a_cluster_should_present_a_token(tmp_path: Path) -> None:
    away = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}
    assert [f.verdict for f in token(healthy(environment=away), joins=True)] == ["warning"]
    assert [f.verdict for f in token(healthy(environment=away), joins=False)] == ["ok"]


def test_few_ports_are_named() -> None:
    assert [f.verdict for f in ports(healthy())] == ["ok"]
    few = healthy(texts={"/proc/sys/net/ipv4/ip_local_port_range": "60000 60999"})
    assert [f.verdict for f in ports(few)] == ["warning"]


@pytest.mark.parametrize(
    ("refuses", "verdict", "words"),
    [
        (True, "ok", "demands the token"),
        (False, "warning", "answers without a token"),
        (None, "warning", "did not answer"),
    ],
)
def test_a_door_that_other_machines_reach_must_demand_the_token(refuses: bool | None, verdict: str, words: str) -> None:
    listeners = [("0.0.0.0", 8265), ("10.0.0.1", 10001), ("::1", 10001), ("0.0.0.0", 22)]
    opened = healthy(listening=lambda: listeners, refuses_strangers=lambda address, port: refuses)
    _, *doors = ports(opened)
    assert [(f.verdict, f.detail.split()[0], words in f.detail) for f in doors] == [
        (verdict, "0.0.0.0:8265", True),
        (verdict, "10.0.0.1:10001", True),
    ]
