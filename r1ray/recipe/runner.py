"""Run the stages of a recipe one after another: skip finished ones, resume interrupted ones, set stale ones aside."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from r1ray.errors import ConfigError, IntegrityError, StageFailed
from r1ray.recipe.folder import (
    LINEAGE,
    Lineage,
    StageAttempt,
    code_versions,
    lock_folder,
    now,
    plain_config,
    start_attempt,
    write_recipe_record,
)
from r1ray.recipe.preflight import Selection, check_folder, find_problems, refuse_if_running, select_stages
from r1ray.recipe.stages import Recipe
from r1ray.recipe.status import StageStatus, assess, assess_all, digest
from r1ray.recipe.tasks import Task
from r1ray.run.folder import RunFolder
from r1ray.util.child import ChildProcess, SignalForwarder, start_time
from r1ray.util.files import read_json
from r1ray.util.formatting import duration, printable

PROGRAM = (sys.executable, "-m", "r1ray")
STOP_S = 60.0
"""Seconds that a stage may take to end after a signal, in addition to its own `deadlines.shutdown_s`."""
_TAIL_BYTES = 4096
_WIDTH = 90


class Runner:
    """One run of a recipe. `program` precedes the command of each stage.

    Example: `Runner(recipe, make_tasks(recipe), Screen()).run(Selection())` returns 0 when every
    stage is done.
    """

    def __init__(
        self, recipe: Recipe, tasks: tuple[Task, ...], screen: Screen, program: Sequence[str] = PROGRAM
    ) -> None:
        self._recipe = recipe
        self._tasks = tasks
        self._screen = screen
        self._program = program
        self._states: dict[str, str] = {}  # for recipe.json

    def run(self, selection: Selection) -> int:
        """Run the selected stages that are not done. Returns 0, or 130 or 143 if a signal ended it.

        Raises ConfigError, before anything is written, for an unknown stage, missing inputs,
        unreadable benchmarks, models that do not fit their configuration, and a folder that is in
        use or belongs to something else. Raises StageFailed if a stage fails.
        """
        check_folder(self._recipe, selection)
        statuses = assess_all(self._tasks, fresh=selection.fresh)
        selected = select_stages(self._tasks, selection, statuses)
        rerun_all = selection.from_stage is not None or selection.fresh
        to_run = [task for task in selected if rerun_all or statuses[task.name].state != "done"]
        if problems := find_problems(to_run, self._tasks, hub=True):
            raise ConfigError("\n".join(problems))
        for task in self._tasks:
            refuse_if_running(task, fresh=selection.fresh)
        if selection.fresh and (aside := RunFolder.set_aside(self._recipe.dir)) is not None:
            self._screen.note(f"The earlier {self._recipe.name} was moved to {aside}.")
        with lock_folder(self._recipe):
            for task in selected if selection.from_stage is not None else []:
                self._set_aside(task)
            statuses = assess_all(self._tasks)
            self._states = {name: "done" if s.state == "done" else "pending" for name, s in statuses.items()}
            self._write_record()
            with SignalForwarder() as signals:
                code = self._run_all(selected, signals)
            if len(selected) < len(self._tasks):
                self._update_other_states()
            return code

    def _run_all(self, tasks: list[Task], signals: SignalForwarder) -> int:
        for i, task in enumerate(tasks):
            position = f"{i + 1}/{len(tasks)}"
            status = assess(task)
            if status.state == "done" and status.lineage is not None:
                self._states[task.name] = "done"
                self._screen.stage(position, task.name, "done", status.lineage.seconds, "already")
                continue
            if signals.exit_code is None:
                if status.state in ("stale", "interrupted") and status.reason:
                    self._screen.note(f"{task.name}: {status.reason}")
                if status.state == "stale" or (status.state == "interrupted" and not task.kind.resumable):
                    self._set_aside(task)
                    status = assess(task)
                self._states[task.name] = "running"
                self._write_record()
                self._run_stage(task, status, position, signals)
            if signals.exit_code is not None:
                self._write_record()
                self._screen.line(f"Stopped. Continue with `{self._resume_command()}`.")
                return signals.exit_code
        self._write_record()
        return 0

    def _update_other_states(self) -> None:
        """Record stages that were not selected as done if they are valid again.

        A stage that runs again may produce the same output, which leaves its readers valid.
        """
        for name, status in assess_all(self._tasks).items():
            if status.state == "done":
                self._states[name] = "done"
        self._write_record()

    def _run_stage(self, task: Task, status: StageStatus, position: str, signals: SignalForwarder) -> None:
        """Run one stage and write its lineage. Raises StageFailed."""
        assert status.inputs is not None, "a stage runs only when all its inputs exist"
        resume = status.state == "interrupted" and (task.folder / "run.json").exists()
        (task.folder / LINEAGE).unlink(missing_ok=True)
        attempt = status.attempt if status.state == "interrupted" else None
        attempt = attempt or StageAttempt(fingerprint=task.fingerprint, inputs=status.inputs)
        start_attempt(task, attempt)
        words = task.command(resume=resume)
        self._screen.stage(position, task.name, "resumes" if resume else "runs", None, f"log: {task.log}")
        code = self._run_process(task, attempt, [*self._program, *words], signals)
        if code == 0 and task.output.exists():
            self._write_lineage(task, attempt)
            self._states[task.name] = "done"
            self._write_record()
            self._screen.stage(position, task.name, "done", attempt.seconds)
            return
        if signals.exit_code is not None:
            self._states[task.name] = "interrupted"
            self._screen.stage(position, task.name, "interrupted", attempt.seconds)
            return
        self._states[task.name] = "failed"
        self._write_record()
        self._screen.stage(position, task.name, "failed", attempt.seconds)
        raise self._failure(task, code)

    def _run_process(self, task: Task, attempt: StageAttempt, argv: list[str], signals: SignalForwarder) -> int:
        """Run the stage's process and return its exit code. The attempt is recorded before and after."""
        entry = {"started": now(), "pid": None, "pid_started": None, "ended": None, "exit": None}
        attempt.attempts.append(entry)
        with task.log.open("a", encoding="utf-8") as log:
            log.write(f"=== {time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(argv)}\n")
        started, name = time.monotonic(), task.name
        child = ChildProcess(argv, task.log)
        try:
            signals.child = child
            if signals.first is not None:  # the signal came before there was a child to forward it to
                child.send(signals.first)
            entry.update(pid=child.pid, pid_started=start_time(child.pid))
            attempt.write(task)
            self._screen.start(name)
            grace = STOP_S + (task.config.deadlines.shutdown_s if task.config else 0.0)
            code = child.wait(
                lambda: self._screen.update(name, started, task.folder, task.log),
                lambda: None if signals.first is None else signals.since + grace,
            )
        finally:
            signals.child = None
            child.close()
            self._screen.stop()
        entry.update(ended=now(), exit=code, pid=None)
        attempt.write(task)
        return code

    def _write_lineage(self, task: Task, attempt: StageAttempt) -> None:
        Lineage(
            recipe=self._recipe.name,
            stage=task.name,
            kind=task.kind.name,
            doc=task.stage.doc,
            command=task.command(resume=False),
            fingerprint=dict(task.fingerprint),
            config=plain_config(task),
            inputs={
                item.reference: {"path": str(item.path), "digest": attempt.inputs[item.reference]}
                for item in task.inputs
            },
            output={"path": str(task.output), "digest": digest(task.output)},
            seed=task.seed,
            code=code_versions(),
            started=attempt.attempts[0]["started"],
            ended=now(),
            seconds=round(attempt.seconds, 3),
            attempts=len(attempt.attempts),
        ).write(task.folder)

    def _failure(self, task: Task, code: int) -> StageFailed:
        message = last_line(task.log, "Error") or last_line(task.log)
        how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
        if code == 0:
            how = f"stopped early: {task.output} does not exist"
        text = f"stage {task.name} {how}: {message}\nLog: {task.log}. Continue with `{self._resume_command()}`."
        return StageFailed(text, exit_code=code if code > 0 else 128 - code if code < 0 else 1)

    def _set_aside(self, task: Task) -> None:
        """Rename the stage's folder and delete its record, so that the stage is pending."""
        record = StageAttempt.read(task)
        if (aside := RunFolder.set_aside(task.folder)) is not None:
            self._screen.note(f"{task.name}: the earlier result was moved to {aside}")
        if record is not None:
            record.delete(task)

    def _resume_command(self) -> str:
        first, *overlays = self._recipe.files
        more = "".join(f" --model-overlay {shlex.quote(o)}" for o in overlays)
        return f"r1ray recipe {shlex.quote(first)}{more}"

    def _write_record(self) -> None:
        write_recipe_record(self._recipe, self._tasks, self._states)


class Screen:
    """Terminal output of a running recipe: a line for each stage, and on a terminal a live progress line."""

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

    def start(self, name: str) -> None:
        """Show the progress line of the stage `name`, if this is a terminal."""
        if self._console.is_terminal:
            self._live = self._console.status(escape(name))
            self._live.start()

    def update(self, name: str, started: float, folder: Path, log: Path) -> None:
        """Update the progress line. `started`: monotonic time."""
        if self._live is not None:
            elapsed = duration(time.monotonic() - started)
            self._live.update(f"{escape(name)} {elapsed}  {escape(_progress(folder, log))}")

    def stop(self) -> None:
        """Remove the progress line."""
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
