"""Progress display of a run: a live screen on a terminal, plain lines elsewhere.

with make_view(total_steps=40) as view:
    view.phase("rollout engine", 1, 3)     # during start-up; total 0: progress is unknown
    view.update(status)                    # the record that is written to status.json
    view.line("worker rollout-1 died: restarting")
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from r1ray.run.lines import Status, evaluation_line, step_line
from r1ray.util.formatting import duration, number, printable, share, sparkline

RAY_PHASE = "Ray"
"""The first phase of a start, after all checks; `r1ray submit` waits for its line."""


class View(Protocol):
    """Display of one run; a context manager that opens and closes it."""

    def phase(self, name: str, done: int, total: int) -> None:
        """Show that start-up phase `name` has done `done` of `total` parts; `total == 0`: unknown.

        It ends with the last.
        """
        ...

    def update(self, status: Status) -> None:
        """Show the record that is also written to status.json."""
        ...

    def line(self, text: str) -> None:
        """Print one permanent line."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *failure: object) -> None: ...


def make_view(console: Console | None = None, *, total_steps: int, clock: Callable[[], float] = time.monotonic) -> View:
    """A live view if the console is a terminal, else one line per phase and step."""
    console = console or Console()
    kind = LiveView if console.is_terminal else PlainView
    return kind(console, total_steps, clock)


class Phases:
    """Start-up phases in order, with the seconds that each has taken so far."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self.progress: dict[str, tuple[int, int]] = {}

    def set(self, name: str, done: int, total: int) -> bool:
        """Record the progress of a phase. Returns whether the phase ended with this call."""
        self._began.setdefault(name, self._clock())
        self.progress[name] = (done, total)
        if 0 < total <= done and name not in self._ended:
            self._ended[name] = self._clock()
            return True
        return False

    def ended(self, name: str) -> bool:
        """Whether the phase has ended."""
        return name in self._ended

    def seconds(self, name: str) -> float:
        """Seconds that the phase has taken."""
        return self._ended.get(name, self._clock()) - self._began[name]


class PlainView:
    """One line at the begin and end of a phase, per training step and per evaluation: for logs and pipes."""

    def __init__(self, console: Console, total_steps: int, clock: Callable[[], float]) -> None:
        self._console = console
        self._total_steps = total_steps
        self._phases = Phases(clock)
        self._state: str | None = None
        self._step: int | None = None
        self._evaluation: Mapping[str, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        return None

    def phase(self, name: str, done: int, total: int) -> None:
        """See `View.phase`."""
        if name not in self._phases.progress:
            self.line(f"{name} ...")
        if self._phases.set(name, done, total):
            self.line(f"{name}: done in {duration(self._phases.seconds(name))}")

    def update(self, status: Status) -> None:
        """See `View.update`."""
        if status["state"] != self._state:
            self._state = status["state"]
            self.line(": ".join(filter(None, [status["state"], status.get("message")])))
        metrics = status.get("metrics")
        if metrics and metrics["step"] != self._step:
            self._step = metrics["step"]
            self.line(step_line(status, self._total_steps))
        evaluation = status.get("evaluation")
        if evaluation and evaluation != self._evaluation:
            self._evaluation = dict(evaluation)
            self.line(evaluation_line(evaluation))

    def line(self, text: str) -> None:
        """See `View.line`."""
        self._console.print(Text(printable(text)), soft_wrap=True)


class LiveView:
    """One screen, redrawn four times a second; the last one remains on the terminal."""

    def __init__(self, console: Console, total_steps: int, clock: Callable[[], float]) -> None:
        self._console = console
        self._total_steps = total_steps
        self._phases = Phases(clock)
        self._status: Status = {}
        self._history: dict[int, Mapping[str, float]] = {}
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *failure: object) -> None:
        self._live.stop()

    def phase(self, name: str, done: int, total: int) -> None:
        """See `View.phase`."""
        self._phases.set(name, done, total)

    def update(self, status: Status) -> None:
        """See `View.update`."""
        self._status = status
        metrics = status.get("metrics")
        if metrics:
            step = metrics["step"]
            # A rewind removes later steps. This is a new dict because the refresh thread may be reading the old one.
            self._history = {s: m for s, m in self._history.items() if s < step} | {step: metrics}

    def line(self, text: str) -> None:
        """See `View.line`."""
        self._console.print(Text(printable(text)))

    def render(self) -> RenderableType:
        """The screen for the last status."""
        status = self._status
        if not status.get("metrics"):
            return Padding(Group(self._headline(status), Text(), self._phase_table()), (1, 2))
        parts = [self._headline(status), Text(), self._curves(), Text(), _facts(status)]
        workers = status.get("workers") or []
        if workers:
            parts += [Text(), _worker_table(workers)]
        return Padding(Group(*parts), (1, 2))

    def _headline(self, status: Status) -> RenderableType:
        steps = status.get("steps") or self._total_steps
        done = status.get("step") or 0
        state = Text().append(status.get("state") or "starting", style="bold")
        if status.get("waiting_for"):
            state.append(f"  waiting for {status['waiting_for']}", style="dim")
        if status.get("message"):
            state.append(f"  {status['message']}", style="yellow")
        clock = Text(justify="right")
        if status.get("elapsed_s") is not None:
            clock.append(duration(status["elapsed_s"]))
        if status.get("eta_s") is not None and done < steps:
            clock.append(f"  {duration(status['eta_s'])} left", style="dim")
        top = Table.grid(expand=True)
        top.add_column(ratio=1)
        top.add_column(justify="right", no_wrap=True)
        top.add_row(state, clock)
        bar = Table.grid(padding=(0, 2), expand=True)
        bar.add_column(no_wrap=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        progress = ProgressBar(total=max(steps, 1), completed=done, complete_style="cyan", finished_style="green")
        bar.add_row(Text(f"step {done:,} of {steps:,}"), progress, Text(share(done / steps) if steps else ""))
        return Group(top, bar)

    def _phase_table(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        table.add_column(width=1)
        table.add_column(no_wrap=True)
        table.add_column(width=30)
        table.add_column(justify="right", no_wrap=True)
        for name, (done, total) in self._phases.progress.copy().items():
            ended = self._phases.ended(name)
            mark = Text("✓", style="green") if ended else Text("›", style="cyan")
            bar: RenderableType = Text()
            if not ended:
                bar = ProgressBar(
                    total=total or None,
                    completed=done,
                    pulse=total == 0,
                    width=30,
                    complete_style="cyan",
                    pulse_style="cyan",
                )
            seconds = Text(duration(self._phases.seconds(name)), style="dim")
            table.add_row(mark, Text(name, style="dim" if ended else ""), bar, seconds)
        return table

    def _curves(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(justify="right", no_wrap=True, min_width=6)
        table.add_column(no_wrap=True)
        rows = list(self._history.values())
        width = max(10, self._console.width - 34)
        for label, key in _CURVES:
            values = [row[key] for row in rows if key in row]
            if values:
                table.add_row(label, Text(number(values[-1])), Text(sparkline(values, width), style="cyan"))
        return table


_CURVES = (
    ("reward", "reward/mean"),
    ("accuracy", "reward/part/accuracy"),
    ("format", "reward/part/format"),
    ("length, tokens", "length/mean"),
    ("entropy", "train/entropy"),
)


def _facts(status: Status) -> RenderableType:
    """Rates, queue, staleness, last sync and last evaluation, one labelled line each."""
    metrics = status.get("metrics") or {}
    rates, queue, sync = (status.get(k) or {} for k in ("rates", "queue", "last_sync"))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    rollout, learner = (number(rates.get(f"{side}_tokens_per_s")) for side in ("rollout", "learner"))
    table.add_row("tokens/s", Text(f"{rollout} rollout, {learner} learner"))
    counts = [f"{queue[k]:,} {k}" for k in ("leased", "scored", "taken", "trained", "dropped") if k in queue]
    if queue.get("oldest_lease_s"):
        counts.append(f"oldest lease {duration(queue['oldest_lease_s'])}")
    table.add_row("queue", Text(", ".join(counts)))
    if "staleness/mean" in metrics:
        mean, most = metrics["staleness/mean"], metrics.get("staleness/max")
        table.add_row("staleness", Text(f"{number(mean)} steps on average, at most {number(most)}"))
    if sync:
        text = f"policy {sync['version']} in {duration(sync['seconds'])}, {duration(sync['age_s'])} ago"
        table.add_row("last sync", Text(text))
    if status.get("evaluation"):
        table.add_row("held out", Text(evaluation_line(status["evaluation"])))
    return table


_STATE_STYLE = {"healthy": "green", "suspect": "yellow", "stale": "yellow", "restarting": "yellow", "dead": "red"}


def _worker_table(workers: list[Mapping[str, Any]]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for worker in workers[:8]:
        state = str(worker["state"]).lower()
        version = worker.get("version")
        rate = worker.get("tokens_per_s")
        table.add_row(
            Text(str(worker["id"])),
            Text(state, style=_STATE_STYLE.get(state, "")),
            Text("" if version is None else f"policy {version}", style="dim"),
            Text("" if rate is None else f"{number(rate)} tokens/s", style="dim"),
        )
    if len(workers) > 8:
        table.add_row(Text(f"and {len(workers) - 8} more", style="dim"))
    return table
