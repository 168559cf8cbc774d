"""`r1ray serve` whose terminal is closed, or which is killed: no server is left."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1ray.util.parent_death import with_parent_death_signal
from tests.unit.serving.test_server import HEALTHY, free_port, run

SERVING = """
import signal
import sys
from pathlib import Path
from r1ray.serving.server import Address, serve
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the caller of the tests may ignore it
port, log, script = int(sys.argv[1]), Path(sys.argv[2]), "import os; print(os.getpid(), flush=True)\\n" + sys.argv[3]
command = [sys.executable, "-c", script, str(port)]
ready = lambda: print("ready", flush=True)
serve(command, {}, Address(host="127.0.0.1", port=port), log, start_s=60, shutdown_s=10, on_ready=ready)
"""
DEADLINE_S = 30.0


@contextlib.contextmanager
def serving(log: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that serves, and a descriptor that tells when its server has ended."""
    command = [sys.executable, "-c", SERVING, str(free_port()), str(log), HEALTHY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        server = None
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            server = os.pidfd_open(int(log.read_text().splitlines()[0]))
            yield process, server
        finally:
            process.kill()
            if server is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(server, signal.SIGKILL)
                os.close(server)


def ended(server: int, within_s: float = DEADLINE_S) -> bool:
    return bool(select.select([server], [], [], within_s)[0])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_the_server_ends_with_the_terminal_and_with_a_killed_command(tmp_path, number, code):
    with serving(tmp_path / "log") as (process, server):
        assert not ended(server, 0)
        process.send_signal(number)
        assert ended(server)
        assert process.wait(DEADLINE_S) == code


def test_a_server_that_is_to_outlive_its_terminal_does(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    meanwhile = []

    def ready() -> None:
        meanwhile.append(signal.getsignal(signal.SIGHUP))
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        run(HEALTHY, tmp_path, ready=ready)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert meanwhile == [signal.SIG_IGN]


def test_a_program_does_not_begin_when_who_started_it_is_gone(tmp_path):
    words = with_parent_death_signal([sys.executable, "-c", "print('begun')"])
    assert subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S, check=True).stdout == "begun\n"
    words[words.index(str(os.getpid()))] = str(os.getppid())
    late = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (late.returncode, late.stdout) == (128 + signal.SIGTERM, "")
