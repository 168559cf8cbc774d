"""A run killed at any point loses nothing that was acknowledged and trains nothing twice; see ledger_crash.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.ledger_support import fast_folder


@pytest.mark.parametrize(("mode", "at_least"), [("statements", 150), ("log", 40), ("checkpoint", 10)])
def test_killed_anywhere_a_run_resumes_whole(mode: str, at_least: int) -> None:
    with fast_folder() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.unit.ledger_crash", mode, str(folder)],
            cwd=Path(__file__).parents[2],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
            },  # no threads in a process that forks
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["killed"] >= at_least
