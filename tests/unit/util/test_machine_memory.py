"""Memory of this process."""

from __future__ import annotations

import subprocess
import sys

HOLES = """
from r1ray.util.machine import resident_bytes, return_free_memory

blocks = [b"x" * 65_000 for _ in range(2_000)]  # each too small for pages of its own
kept = blocks[::8]
del blocks
before = resident_bytes()
return_free_memory()
print(before - resident_bytes())
"""


def test_holes_between_blocks_in_use_are_returned() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) > 80e6
