"""Quick ratios of speed are within their wide bounds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.alone]
ROOT = Path(__file__).parents[2]


def test_no_quick_ratio_is_out_of_its_bounds() -> None:
    command = [sys.executable, "-m", "benchmarks.guard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
