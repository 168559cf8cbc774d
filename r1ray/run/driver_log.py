"""What a driver prints, also as plain lines in `logs/driver.log`, which other hosts can read."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from rich.console import Console

from r1ray.run.json_view import JsonView
from r1ray.run.lines import Status
from r1ray.run.view import PlainView, View
from r1ray.util.files import is_disk_full

WIDTH = 200


class _Log(io.StringIO):
    """Appends whole texts to a file. Lines for which the disk has no room are left out; the terminal has them."""

    def __init__(self, path: Path, *, stamped: bool) -> None:
        """`stamped`: the time precedes each line."""
        super().__init__()
        self._path = path
        self._stamped = stamped

    def write(self, text: str) -> int:
        stamped = "".join(
            f"{time.strftime('%H:%M:%S')} {line}" if self._stamped and line.strip() else line
            for line in text.splitlines(keepends=True)
        )
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(stamped)
        except OSError as e:
            if not is_disk_full(e):
                raise
        return len(text)


def log_view(
    path: Path, *, total_steps: int, run_id: str | None = None, clock: Callable[[], float] = time.monotonic
) -> View:
    """Appends what a plain view would print to the file `path`, whose folder exists; as JSON if `run_id` is given."""
    if run_id is not None:
        return JsonView(run_id, total_steps, file=_Log(path, stamped=False))
    console = Console(file=_Log(path, stamped=True), width=WIDTH, no_color=True, highlight=False)
    return PlainView(console, total_steps, clock)


class LoggedView:
    """Shows a run in `view`, and the same in `log`."""

    def __init__(self, view: View, log: View) -> None:
        self._views: tuple[View, View] = (view, log)

    def __enter__(self) -> Self:
        self._views[0].__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        self._views[0].__exit__(*failure)

    def phase(self, name: str, done: int, total: int) -> None:
        """See `View.phase`."""
        for view in self._views:
            view.phase(name, done, total)

    def update(self, status: Status) -> None:
        """See `View.update`."""
        for view in self._views:
            view.update(status)

    def line(self, text: str) -> None:
        """See `View.line`."""
        for view in self._views:
            view.line(text)
