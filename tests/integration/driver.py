"""`r1ray train` as a process that a test watches while it runs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.chaos.observe import ObservedRun
from tests.integration.processes import start_r1ray

HERE = Path(__file__).parent
MOMENT_S = 240.0


class Driver:
    """`r1ray train` with small deadlines, which runs until a test ends it."""

    def __init__(self, run: Path, *arguments: str | Path) -> None:
        self.seen = ObservedRun(run)
        self.process = start_r1ray("train", *arguments)
        self._said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError), self.process.stdout as lines:  # closed where the test has failed
            self._said.extend(lines)

    def said(self) -> str:
        """All that it has printed."""
        return "".join(self._said)

    def wait_for(self, what: str, moment: Callable[[], bool]) -> None:
        until = time.monotonic() + MOMENT_S
        while not moment():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < until, f"waited {MOMENT_S:g} s for {what}: {self.seen.status()}"
            time.sleep(0.02)

    def wait_for_event(self, kind: str, count: int = 1) -> None:
        self.wait_for(f"{count} events {kind}", lambda: len(self.seen.events(kind)) >= count)

    def end(self, code: int, within_s: float = MOMENT_S) -> str:
        self.process.wait(within_s)
        self._reader.join(within_s)
        text = self.said()
        assert self.process.returncode == code, text
        return text


def start(run: Path, model: Path, *settings: str) -> Driver:
    """A run of loop.yaml in folder `run`, long enough for any test."""
    return Driver(run, HERE / "loop.yaml", f"run.dir={run}", f"model.path={model}", "run.steps=100000", *settings)
