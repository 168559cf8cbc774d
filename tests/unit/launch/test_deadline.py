"""A call that nothing can interrupt ends its process by name, with the processes that it has started."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil

from r1ray.errors import InfrastructureError
from r1ray.launch.deadline import ends_within

HANGS = """
import subprocess, sys, threading
from pathlib import Path
from r1ray.launch import ray_session
from r1ray.telemetry.logs import LogTarget

recorded, started = Path(sys.argv[1]), Path(sys.argv[2])
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]

def init(**options):
    started.write_text(str(subprocess.Popen(sleep).pid))
    threading.Event().wait()

ray_session.ray.init = init
ray_session.START_S = 0.5
log = LogTarget(path=recorded.with_name("ray.log"), run_id="r", actor="ray", as_json=False)
ray_session.connect(None, log, recorded.write_text, num_cpus=1)
"""


def test_a_ray_that_hangs_as_it_starts_ends_the_process_by_name(tmp_path: Path) -> None:
    recorded, started = tmp_path / "recorded", tmp_path / "started"
    ended = subprocess.run(
        [sys.executable, "-c", HANGS, recorded, started], capture_output=True, text=True, timeout=60.0, check=False
    )
    child = int(started.read_text())
    assert ended.returncode == InfrastructureError.exit_code
    assert "InfrastructureError: Ray did not start on this machine within 0.5 s (load " in ended.stderr
    assert recorded.read_text() in ended.stderr
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_call_in_time_ends_nothing() -> None:
    with ends_within(0.05, lambda: "late", lambda text: None):
        pass
    time.sleep(0.2)  # beyond the deadline
