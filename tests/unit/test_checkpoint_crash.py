"""Checkpoints and records whose writer is killed, or fails, at any point are whole or absent; see checkpoint_crash.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.ledger_support import fast_folder


@pytest.mark.parametrize(
    ("mode", "at_least"),
    [
        ("checkpoint-kill", 120),
        ("checkpoint-torn", 25),
        ("checkpoint-fail", 120),
        ("record-kill", 12),
        ("record-fail", 20),
    ],
)
def test_killed_or_failing_anywhere_it_is_whole_or_absent(mode: str, at_least: int) -> None:
    with fast_folder() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.unit.checkpoint_crash", mode, str(folder)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},  # it forks
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["faults"] >= at_least
