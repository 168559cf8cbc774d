"""What holds for all tests."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys

# Tests start hundreds of processes, and each would compile the modules that it imports.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell's background job ignores SIGINT, one under nohup SIGHUP; tests and their commands must get them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

from hypothesis import HealthCheck, settings  # noqa: E402

# The same examples everywhere, however long one of them takes: a failure is the code's, not the machine's.
settings.register_profile("r1ray", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("r1ray")


def pytest_collection_finish() -> None:
    """What is imported by now stays: no collection of garbage needs to look at it again."""
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # else extension modules report their objects as leaked at the end
