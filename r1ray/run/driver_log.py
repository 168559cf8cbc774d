"""What a driver prints, also as plain lines in `logs/driver.log`, which other hosts can read."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from rich.console import Console

from r1ray.run.lines import Status
from r1ray.run.view import PlainView, View
from r1ray.util.files import is_disk_full

WIDTH = 200


class _Log(io.StringIO):
    """Appends whole texts to a file. Lines for which the disk has no room are left out; the terminal has them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def write(self, text: str) -> int:
        stamped = "".join(
            f"{time.strftime('%H:%M:%S')} {line}" if line.strip() else line for line in text.splitlines(keepends=True)
        )
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(stamped)
        except OSError as e:
            if not is_disk_full(e):
                raise
        return len(text)


class LoggedView:
    """Shows a run in `view`, and appends what a plain view would print to the file `path`, whose folder exists."""

    def __init__(
        self, view: View, path: Path, *, total_steps: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        console = Console(file=_Log(path), width=WIDTH, no_color=True, highlight=False)
        self._views: tuple[View, View] = (view, PlainView(console, total_steps, clock))

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
