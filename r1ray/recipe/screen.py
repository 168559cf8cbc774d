"""What a recipe shows while it runs: a line for each stage, and on a terminal a last line that moves."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from r1ray.errors import IntegrityError
from r1ray.util.files import read_json
from r1ray.util.formatting import duration, printable

_TAIL_BYTES = 4096
_WIDTH = 90


class Screen:
    """Lines that stay, and while a stage runs how far it is. Works the same without a terminal, less the moving line."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._moving: Status | None = None

    def line(self, text: str) -> None:
        """Print one line that stays."""
        self._console.print(escape(text), soft_wrap=True)

    def stage(self, place: str, name: str, state: str, seconds: float | None = None, more: str = "") -> None:
        """One stage: its `place` such as 3/12, its state, and the time it took."""
        took = "" if seconds is None else duration(seconds)
        styles = {"done": "green", "failed": "red", "interrupted": "yellow"}
        shown = f"[{styles.get(state, 'cyan')}]{state:<11}[/]"
        text = f"{place:>6}  {escape(name):<28} {shown} {took:>9}  {escape(more)}"
        self._console.print(text.rstrip(), soft_wrap=True)

    def begin(self, name: str) -> None:
        """The stage `name` starts to run."""
        if self._console.is_terminal:
            self._moving = self._console.status(escape(name))
            self._moving.start()

    def tick(self, name: str, began: float, folder: Path, log: Path) -> None:
        """The stage still runs; `began` as `time.monotonic` had it."""
        if self._moving is not None:
            self._moving.update(
                f"{escape(name)} {duration(time.monotonic() - began)}  {escape(_progress(folder, log))}"
            )

    def end(self) -> None:
        """The stage has ended."""
        if self._moving is not None:
            self._moving.stop()
            self._moving = None


def _progress(folder: Path, log: Path) -> str:
    """How far a stage is: its steps where it counts them, else the last line of its log."""
    try:
        status = read_json(folder / "status.json")
    except IntegrityError:  # not there yet, or a stage that writes none
        return last_line(log)[:_WIDTH]
    step, steps = status.get("step"), status.get("steps")
    told = f"step {step} of {steps}" if step is not None and steps else str(status.get("state", ""))
    return f"{told}  {last_line(log)}"[:_WIDTH]


def last_line(log: Path, containing: str = "") -> str:
    """The last line of a log that is not empty and contains the text; empty where there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as f:
        f.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        text = f.read().decode(errors="replace")
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines()]
    return printable(next((line for line in reversed(lines) if line and containing in line), ""))
