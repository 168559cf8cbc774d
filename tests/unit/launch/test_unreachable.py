"""A head that is down, silent, or swallows packets: every command names it at its deadline,
and none waits without one.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from r1ray.cli import main
from r1ray.errors import ConfigError, InfrastructureError
from r1ray.launch import jobs, ray_session
from r1ray.launch.jobs import Jobs
from r1ray.launch.ray_session import demands_token, look_at
from r1ray.preflight import doors

SHORT_S = 0.5
SLACK_S = 12.0
"""For the process itself on a busy machine; a connection without a deadline waits for two minutes."""


@contextmanager
def closed() -> Iterator[str]:
    """A port on which nothing listens: the kernel refuses connections."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{reserved.getsockname()[1]}"


@contextmanager
def silent() -> Iterator[str]:
    """A listener that accepts connections and never answers, such as a tunnel whose other end hangs."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def black_hole() -> Iterator[str]:
    """An address that answers no SYN, such as one behind a firewall: a listener whose queue is full drops them."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, ExitStack() as queued:
        for _ in range(8):
            waiting = queued.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield f"127.0.0.1:{listening.getsockname()[1]}"


HEADS = [closed, silent, black_hole]


@pytest.fixture(params=HEADS, ids=lambda head: head.__name__)
def head(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Address of a head that cannot be reached.

    Deadlines are short, so that only the waits that have one end in time.
    """
    for module, name in ((ray_session, "PROBE_S"), (jobs, "ANSWER_S"), (doors, "ANSWER_S")):
        monkeypatch.setattr(module, name, SHORT_S)
    for name in ("RAY_AUTH_MODE", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, "")  # so that what a command sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with request.param() as address:
        yield address


def took_s(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_the_black_hole_swallows_connections() -> None:
    with black_hole() as address:
        host, _, port = address.partition(":")
        with pytest.raises(TimeoutError):
            socket.create_connection((host, int(port)), timeout=0.3)


def test_the_head_is_named_by_the_look_at_its_nodes(head: str) -> None:
    def refused() -> None:
        with pytest.raises(ConfigError, match=f"ray.address = '{head}': no Ray cluster answers there"):
            look_at(head)

    assert took_s(refused) < SHORT_S + SLACK_S


def test_a_silent_head_is_named_with_the_seconds_that_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session, "PROBE_S", SHORT_S)
    with silent() as head, pytest.raises(ConfigError, match=r"no Ray cluster answers there \(silent for 0\.5 s\)"):
        look_at(head)


def test_whether_it_demands_a_token_is_unknown(head: str) -> None:
    assert took_s(lambda: demands_token(head)) < SHORT_S + SLACK_S
    assert demands_token(head) is None


def test_its_dashboard_is_named_by_the_client(head: str) -> None:
    def refused() -> None:
        with pytest.raises(InfrastructureError, match=f"http://{head}.*ray dashboard"):
            Jobs.at(f"http://{head}")

    assert took_s(refused) < SHORT_S + SLACK_S


NAMED: dict[str, int] = {
    "status /runs/a --address http://{head}": InfrastructureError.exit_code,
    "logs /runs/a -f --address http://{head}": InfrastructureError.exit_code,
    "stop /runs/a --address http://{head}": InfrastructureError.exit_code,
    "scale /runs/a rollout=2 --address http://{head}": InfrastructureError.exit_code,
    "submit tiny ray.address=auto run.dir=/r model.path=/m --address http://{head}": InfrastructureError.exit_code,
    "train tiny ray.address={head} run.dir=new": ConfigError.exit_code,
    "train tiny ray.address={head} run.dir=new --dry-run": ConfigError.exit_code,
    "doctor --cluster tiny ray.address={head} run.dir=new": ConfigError.exit_code,
}
"""Command -> its exit code if the head cannot be reached."""

ALL = f"""
import sys
from r1ray.cli import main
head = sys.argv[1]
for command, code in {NAMED}.items():
    sys.argv = ["r1ray", *command.format(head=head).split()]
    try:
        main()
    except SystemExit as end:
        assert end.code == code, command
print(sorted({{"torch", "vllm", "deepspeed", "transformers"}} & set(sys.modules)))
"""


@pytest.mark.parametrize("command", NAMED)
def test_every_command_ends_by_name_and_writes_nothing(
    head: str, command: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["r1ray", *command.format(head=head).split()])

    def refused() -> None:
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == NAMED[command]

    assert took_s(refused) < SHORT_S + SLACK_S
    assert head in capfd.readouterr().err
    assert not Path("new").exists()


def test_none_of_them_waits_for_libraries_that_it_does_not_need() -> None:
    """They import for ten seconds, on a busy machine for a minute."""
    with closed() as address:
        done = subprocess.run(
            [sys.executable, "-c", ALL, address], capture_output=True, text=True, timeout=120, check=True
        )
    assert done.stdout == "[]\n"
