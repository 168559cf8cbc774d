"""Runs the stages of a recipe one after another: skips what is done, continues what was begun, sets aside what is stale."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from r1ray.errors import ConfigError, StageFailed
from r1ray.recipe import folder, record
from r1ray.recipe.child import Child, Signals, started
from r1ray.recipe.digests import digest
from r1ray.recipe.lineage import LINEAGE, Lineage, StageAttempt, code_versions, now
from r1ray.recipe.preflight import problems
from r1ray.recipe.records import Recipe
from r1ray.recipe.screen import Screen, last_line
from r1ray.recipe.stage_status import StageStatus, assess, assess_all
from r1ray.recipe.tasks import Task
from r1ray.run.folder import RunFolder
from r1ray.util.files import write_atomic

PROGRAM = (sys.executable, "-m", "r1ray")
STOP_S = 60.0
"""What a stage may take to end after a signal, besides its own `deadlines.shutdown_s`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which stages run. Producer: the command line. Consumer: `Runner`."""

    only: str | None = None  # this one alone; what it reads must be done
    since: str | None = None  # this one and all that read from it anew; what they read besides must be done
    resume: bool = False  # the recipe must have been begun
    fresh: bool = False  # what is there is kept under another name


class Runner:
    """One run of a recipe. `program` begins every command line.

    Example: `Runner(recipe, make_tasks(recipe), Screen()).run(Selection())` returns 0 when every stage is done.
    """

    def __init__(
        self, recipe: Recipe, tasks: tuple[Task, ...], screen: Screen, program: Sequence[str] = PROGRAM
    ) -> None:
        self._recipe = recipe
        self._tasks = tasks
        self._screen = screen
        self._program = program
        self._states: dict[str, str] = {}  # of recipe.json

    def run(self, selection: Selection) -> int:
        """Run what is selected and not done. Returns 0, or 130 or 143 where a signal ended it.

        Raises ConfigError, before anything is written, for a stage that does not exist, inputs that are not there, benchmarks
        that cannot be read, models that do not fit, and a folder that is in use or not a recipe's; StageFailed for a stage
        that ended badly.
        """
        names = [task.name for task in self._tasks]
        for name in (selection.only, selection.since):
            if name is not None and name not in names:
                raise ConfigError(f"no stage {name} in {self._recipe.name}: there are {', '.join(names)}")
        folder.check(self._recipe, resume=selection.resume, fresh=selection.fresh)
        standings = assess_all(self._tasks, fresh=selection.fresh)
        chosen = self._chosen(selection, standings)
        anew = [
            t for t in chosen if selection.since is not None or selection.fresh or standings[t.name].state != "done"
        ]
        if wrong := problems(anew, self._tasks, hub=True):
            raise ConfigError("\n".join(wrong))
        for task in self._tasks:
            folder.refuse_orphan(task, fresh=selection.fresh)
        if selection.fresh and (aside := RunFolder.set_aside(self._recipe.dir)) is not None:
            self._screen.line(f"{'':>8}An earlier {self._recipe.name} is kept as {aside}.")
        with folder.locked(self._recipe):
            for task in chosen if selection.since is not None else []:
                self._set_aside(task)
            standings = assess_all(self._tasks)
            self._states = {name: "done" if s.state == "done" else "to do" for name, s in standings.items()}
            self._record()
            with Signals() as signals:
                code = self._run(chosen, signals)
            if len(chosen) < len(self._tasks):
                self._look_again()
            return code

    def _chosen(self, selection: Selection, standings: dict[str, StageStatus]) -> list[Task]:
        """The stages to go through. Raises ConfigError where one of them reads what is not there and will not be made."""
        tasks = list(self._tasks)
        if selection.only is not None:
            tasks = [task for task in tasks if task.name == selection.only]
        elif selection.since is not None:
            tasks = _with_readers(tasks, selection.since)
        make = {task.name for task in tasks}
        undone = "not there after --fresh: leave that out" if selection.fresh else "not done: run that first"
        lacking: list[str] = []
        for task in tasks:
            if standings[task.name].lacks:
                lacking.append(f"stage {task.name}: {standings[task.name].why}")
            for name in [r.stage for r in task.reads if r.stage is not None and r.stage not in make]:
                if standings[name].state != "done":
                    lacking.append(f"stage {task.name}: reads @{name}, which is {undone}")
        if lacking:
            raise ConfigError("\n".join(lacking))
        return tasks

    def _run(self, tasks: list[Task], signals: Signals) -> int:
        for i, task in enumerate(tasks):
            place = f"{i + 1}/{len(tasks)}"
            standing = assess(task)
            if standing.state == "done" and standing.lineage is not None:
                self._states[task.name] = "done"
                self._screen.stage(place, task.name, "done", standing.lineage.seconds, "already")
                continue
            if signals.code is None:
                if standing.state == "stale" or (standing.state == "begun" and not task.kind.resumes):
                    self._tell(task, standing.why)
                    self._set_aside(task)
                    standing = assess(task)
                elif standing.state == "begun":
                    self._tell(task, standing.why)
                self._states[task.name] = "running"
                self._record()
                self._stage(task, standing, place, signals)
            if signals.code is not None:
                self._record()
                self._screen.line(f"Stopped. Continue with `{self._again()}`.")
                return signals.code
        self._record()
        return 0

    def _look_again(self) -> None:
        """Note the stages that were not chosen and are current: what was run before them may have come out the same."""
        for name, standing in assess_all(self._tasks).items():
            if standing.state == "done":
                self._states[name] = "done"
        self._record()

    def _stage(self, task: Task, standing: StageStatus, place: str, signals: Signals) -> None:
        """Run one stage to its end and write its lineage. Raises StageFailed."""
        resume = standing.state == "begun" and (task.folder / task.kind.mark).exists()
        (task.folder / LINEAGE).unlink(missing_ok=True)
        begun = folder.prepare(task, standing)
        words = task.command(resume=resume)
        self._screen.stage(place, task.name, "resumes" if resume else "runs", None, f"log: {task.log}")
        code = self._child(task, begun, [*self._program, *words], signals)
        if code == 0 and task.output.exists():
            self._finish(task, begun)
            self._states[task.name] = "done"
            self._record()
            self._screen.stage(place, task.name, "done", begun.seconds)
            return
        if signals.code is not None:
            self._states[task.name] = "interrupted"
            self._screen.stage(place, task.name, "interrupted", begun.seconds)
            return
        self._states[task.name] = "failed"
        self._record()
        self._screen.stage(place, task.name, "failed", begun.seconds)
        raise self._failure(task, code)

    def _child(self, task: Task, begun: StageAttempt, argv: list[str], signals: Signals) -> int:
        """The exit code of the stage's process; the attempt is noted before and after."""
        attempt = {"began": now(), "pid": None, "pid_started": None, "ended": None, "exit": None}
        begun.attempts.append(attempt)
        with task.log.open("a", encoding="utf-8") as log:
            log.write(f"=== {time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(argv)}\n")
        began, name = time.monotonic(), task.name
        child = Child(argv, task.log)
        try:
            signals.child = child
            if signals.first is not None:  # it came before there was a child to hand it on to
                child.send(signals.first)
            attempt.update(pid=child.pid, pid_started=started(child.pid))
            begun.write(task)
            self._screen.begin(name)
            grace = STOP_S + (task.config.deadlines.shutdown_s if task.config else 0.0)
            code = child.wait(
                lambda: self._screen.tick(name, began, task.folder, task.log),
                lambda: None if signals.first is None else signals.since + grace,
            )
        finally:
            signals.child = None
            child.close()
            self._screen.end()
        attempt.update(ended=now(), exit=code, pid=None)
        begun.write(task)
        return code

    def _finish(self, task: Task, begun: StageAttempt) -> None:
        Lineage(
            recipe=self._recipe.name,
            stage=task.name,
            kind=task.kind.name,
            doc=task.stage.doc,
            command=task.command(resume=False),
            fingerprint=dict(task.fingerprint),
            config=record.plain_config(task),
            inputs={r.reference: {"path": str(r.path), "digest": begun.inputs[r.reference]} for r in task.reads},
            output={"path": str(task.output), "digest": digest(task.output)},
            seed=task.seed,
            code=code_versions(),
            began=begun.attempts[0]["began"],
            ended=now(),
            seconds=round(begun.seconds, 3),
            attempts=len(begun.attempts),
        ).write(task.folder)

    def _failure(self, task: Task, code: int) -> StageFailed:
        told = last_line(task.log, "Error") or last_line(task.log)
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if code == 0:
            how = f"stopped before its end: {task.output} is not there"
        text = f"stage {task.name} {how}: {told}\nLog: {task.log}. Continue with `{self._again()}`."
        return StageFailed(text, exit_code=code if code > 0 else 128 - code if code < 0 else 1)

    def _set_aside(self, task: Task) -> None:
        """Keep what a stage has under another name; the stage is to do then."""
        begun = StageAttempt.read(task)
        if (aside := RunFolder.set_aside(task.folder)) is not None:
            self._screen.line(f"{'':>8}{task.name}: what was there is kept as {aside}")
        if begun is not None:
            begun.forget(task)

    def _tell(self, task: Task, why: str) -> None:
        if why:
            self._screen.line(f"{'':>8}{task.name}: {why}")

    def _again(self) -> str:
        first, *overlays = self._recipe.files
        more = "".join(f" --model-overlay {shlex.quote(o)}" for o in overlays)
        return f"r1ray recipe {shlex.quote(first)}{more}"

    def _record(self) -> None:
        write_atomic(folder.recipe_file(self._recipe), record.recipe_json(self._recipe, self._tasks, self._states))


def _with_readers(tasks: list[Task], first: str) -> list[Task]:
    """The stage `first` and all stages that read from it, directly or not."""
    names = {first}
    for task in tasks:
        if any(read.stage in names for read in task.reads):
            names.add(task.name)
    return [task for task in tasks if task.name in names]
