"""What a run without a policy in training says of itself: status.json, and a line in the terminal."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from r1ray.files import write_atomic
from r1ray.metrics import jsonable
from r1ray.runfolder import RunFolder
from r1ray.view import View

STATUS_EVERY_S = 1.0


class Told:
    """`kind` is the command, `phase` what it is doing, for people."""

    def __init__(self, folder: RunFolder, view: View, *, kind: str, phase: str) -> None:
        self._folder = folder
        self._view = view
        self._kind = kind
        self._phase = phase
        self._written = float("-inf")
        self._began = time.monotonic()
        self.done = self.total = 0
        self.figures: Mapping[str, Any] = {}

    def report(self, state: str, done: int, total: int, figures: Mapping[str, Any]) -> None:
        """`done` of `total` steps or prompts; `figures` of the last of them."""
        self.done, self.total, self.figures = done, total, figures
        if total:
            self._view.phase(self._phase, done, total)
        if state != "running" or time.monotonic() - self._written > STATUS_EVERY_S:
            self._write(state, "")

    def end(self, state: str, message: str) -> None:
        """The last word."""
        self._write(state, message)

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
            "step": self.done,
            "steps": self.total,
            "metrics": dict(self.figures),
        }
        text = json.dumps(jsonable(status), indent=1)
        write_atomic(self._folder.status, text.encode(), durable=False)
