"""The terminal of a run closes, as when an ssh connection ends: a checkpoint is written,
and nothing is left running.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from benchmarks.chaos.campaign import verify
from benchmarks.chaos.observe import ObservedRun
from r1ray.run.metrics import read_metrics
from tests.integration.models import random_model, write_model
from tests.integration.processes import share_fork_servers

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
HERE = Path(__file__).parent


def test_a_closed_terminal_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    write_model(random_model(seed=4), tmp_path / "model")
    run = tmp_path / "run"
    settings = [f"run.dir={run}", f"model.path={tmp_path / 'model'}", "run.steps=100000", "checkpoint.every_steps=1000"]
    share_fork_servers()
    main, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "r1ray", "train", str(HERE / "loop.yaml"), *settings],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(terminal)
    said: list[bytes] = []
    closed = threading.Event()

    def read() -> None:
        while not closed.is_set():
            said.append(os.read(main, 65536))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    seen, until = ObservedRun(run), time.monotonic() + 240
    try:
        while seen.steps_with_batch() < 2:
            assert process.poll() is None, b"".join(said).decode()
            assert time.monotonic() < until, "no step"
            time.sleep(0.02)
        closed.set()
        reader.join(60.0)
        os.close(main)  # the kernel sends SIGHUP to the group in the foreground: the driver and what it started in it
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait(60.0)
    (interrupted,) = seen.events("interrupted")
    assert interrupted["reason"] == "SIGHUP"
    assert interrupted["saved"] == len(read_metrics(run)) > 0
    assert verify(run) == {"exit_code": 0, "violations": []}
