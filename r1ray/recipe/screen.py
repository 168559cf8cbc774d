"""Terminal output of a running recipe, and the last lines of the logs of its stages."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Terminal output of a running recipe: a line for each stage, and on a terminal a live line for each that runs."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._live: Status | None = None

    def line(self, text: str) -> None:
        """Print one line."""
        self._console.print(escape(text), soft_wrap=True)

    def note(self, text: str) -> None:
        """Print one line, indented to the names of stages."""
        self.line(f"{'':>8}{text}")

    def stage(self, position: str, name: str, state: str, seconds: float | None = None, more: str = "") -> None:
        """Print a stage: its `position` such as 3/12, its state, and the seconds that it took."""
        took = "" if seconds is None else duration(seconds)
        styles = {"done": "green", "failed": "red", "interrupted": "yellow"}
        shown = f"[{styles.get(state, 'cyan')}]{state:<11}[/]"
        text = f"{position:>6}  {escape(name):<28} {shown} {took:>9}  {escape(more)}"
        self._console.print(text.rstrip(), soft_wrap=True)

    def update(self, stages: Sequence[tuple[str, float, Path, Path]]) -> None:
        """Show on a terminal how far the running stages are: name, seconds so far, folder and log of each."""
        if not self._console.is_terminal:
            return
        if self._live is None:
            self._live = self._console.status("")
            self._live.start()
        lines = (f"{name} {duration(seconds)}  {_progress(folder, log)}" for name, seconds, folder, log in stages)
        self._live.update(escape("\n".join(lines)))

    def stop(self) -> None:
        """Remove the progress lines."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _progress(folder: Path, log: Path) -> str:
    """Return the stage's step count if it has one, and the last line of its log."""
    try:
        status = read_json(folder / "status.json")
    except IntegrityError:  # not written yet, or a stage that has no status file
        return last_line(log)[:_WIDTH]
    step, steps = status.get("step"), status.get("steps")
    progress = f"step {step} of {steps}" if step is not None and steps else str(status.get("state", ""))
    return f"{progress}  {last_line(log)}"[:_WIDTH]


def last_line(log: Path, containing: str = "") -> str:
    """Return the last non-empty line of a log that contains the text; empty if there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as f:
        f.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        text = f.read().decode(errors="replace")
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines()]
    return printable(next((line for line in reversed(lines) if line and containing in line), ""))
