"""Progress of a run as JSON lines, with `logging.json`."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console

from r1ray.run.view import PlainView
from r1ray.telemetry.logs import json_line


class JsonView(PlainView):
    """The lines of `PlainView`, each as one object of `r1ray.telemetry.logs`."""

    def __init__(self, run_id: str, total_steps: int, *, file: TextIO | None = None) -> None:
        """`file` None: standard output."""
        super().__init__(Console(), total_steps, time.monotonic)
        self._run_id = run_id
        self._file = file

    def line(self, text: str) -> None:
        """See `View.line`."""
        made = json_line(text, run_id=self._run_id, actor="driver", stream="stdout")
        file = self._file or sys.stdout
        file.write(made + "\n")  # in one piece: another process may append to the same file
        file.flush()
