"""Status of a run that trains no policy: status.json and a line on the terminal."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from r1ray.run.folder import RunFolder
from r1ray.run.metrics import jsonable
from r1ray.run.view import View
from r1ray.util.files import write_atomic
from r1ray.util.formatting import duration, number

STATUS_EVERY_S = 1.0
LINE_EVERY_S = 30.0


class JobStatusWriter:
    """`kind` is the command, `phase` a description of its work, `unit` what it counts."""

    def __init__(self, folder: RunFolder, view: View, *, kind: str, phase: str, unit: str = "steps") -> None:
        self._folder = folder
        self._view = view
        self._kind = kind
        self._phase = phase
        self._unit = unit
        self._written = float("-inf")
        self._began = self._line = time.monotonic()
        self._first: tuple[int, float] | None = None  # the first count and its time
        self.done = self.total = 0
        self.figures: Mapping[str, Any] = {}

    def report(self, state: str, done: int, total: int, figures: Mapping[str, Any]) -> None:
        """`done` of `total` steps or prompts; `figures` of the last of them."""
        self.done, self.total, self.figures = done, total, figures
        if total:
            self._first = self._first or (done, time.monotonic())
            self._view.phase(self._phase, done, total)
            if done < total and time.monotonic() - self._line > LINE_EVERY_S:
                self._line = time.monotonic()
                self._view.line(self._text())
        if state != "running" or time.monotonic() - self._written > STATUS_EVERY_S:
            self._write(state, "")

    def end(self, state: str, message: str) -> None:
        """Write the final status."""
        self._write(state, message)

    @property
    def eta_s(self) -> float | None:
        """Estimated seconds left at the present rate; None before there is one."""
        if self._first is None or self.done == self._first[0]:
            return None
        done, since = self._first
        return (time.monotonic() - since) / (self.done - done) * (self.total - self.done)

    def _text(self) -> str:
        parts = [f"{self._phase}: {self.done:,} of {self.total:,} {self._unit}"]
        if (rate := self.figures.get("tokens_per_s")) is not None:
            parts.append(f"{number(rate)} tokens/s")
        if (eta := self.eta_s) is not None:
            parts.append(f"{duration(eta)} left")
        return ", ".join(parts)

    def _write(self, state: str, message: str) -> None:
        self._written = time.monotonic()
        status: dict[str, Any] = {
            "kind": self._kind,
            "state": state,
            "message": message,
            "updated": time.time(),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "elapsed_s": time.monotonic() - self._began,
            "eta_s": self.eta_s,
            "step": self.done,
            "steps": self.total,
            "metrics": dict(self.figures),
        }
        text = json.dumps(jsonable(status), indent=1)
        write_atomic(self._folder.status, text.encode(), durable=False)
