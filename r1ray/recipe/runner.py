"""Run the stages of a recipe: skip finished ones, resume interrupted ones, set stale ones aside."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence

from r1ray.errors import ConfigError, StageFailed
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
from r1ray.recipe.running import RunningStage, wait_for_any
from r1ray.recipe.screen import Screen, last_line
from r1ray.recipe.stages import Recipe
from r1ray.recipe.status import assess, assess_all, digest
from r1ray.recipe.tasks import Task
from r1ray.run.folder import RunFolder
from r1ray.util.child import SignalForwarder

PROGRAM = (sys.executable, "-m", "r1ray")


class Runner:
    """One run of a recipe. `program` precedes the command of each stage. `prepare` is called with the stages that
    are going to run, before the first of them starts.

    Example: `Runner(recipe, make_tasks(recipe), Screen()).run(Selection())` returns 0 when every
    stage is done.
    """

    def __init__(
        self,
        recipe: Recipe,
        tasks: tuple[Task, ...],
        screen: Screen,
        program: Sequence[str] = PROGRAM,
        prepare: Callable[[Sequence[Task]], object] = lambda tasks: None,
    ) -> None:
        self._recipe = recipe
        self._tasks = tasks
        self._screen = screen
        self._program = program
        self._prepare = prepare
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
                self._prepare(to_run)
                code = self._run_all(selected, signals)
            if len(selected) < len(self._tasks):
                self._update_other_states()
            return code

    def _run_all(self, tasks: list[Task], signals: SignalForwarder) -> int:
        """Run the tasks, up to `Recipe.parallel` at once, each as soon as the stages that it reads from are done.

        After a failure or a signal no further stage starts; those that run end first.
        """
        waiting = dict(enumerate(tasks, 1))
        running: list[RunningStage] = []
        failure: StageFailed | None = None
        try:
            while True:
                while failure is None and signals.exit_code is None and len(running) < self._recipe.parallel:
                    open_stages = {t.name for t in waiting.values()} | {r.task.name for r in running}
                    place = next((p for p, t in waiting.items() if open_stages.isdisjoint(_read_by(t))), None)
                    if place is None:
                        break
                    running += self._started(waiting.pop(place), f"{place}/{len(tasks)}", signals)
                if not running:
                    break
                self._screen.update([(r.task.name, r.seconds, r.task.folder, r.task.log) for r in running])
                for stage in wait_for_any(running, signals):
                    running.remove(stage)
                    failed = self._ended(stage, signals)
                    failure = failure or failed
        finally:
            for stage in running:
                stage.close()
            self._screen.stop()
        self._write_record()
        if failure is not None:
            raise failure
        if signals.exit_code is not None:
            self._screen.line(f"Stopped. Continue with `{self._resume_command()}`.")
            return signals.exit_code
        return 0

    def _update_other_states(self) -> None:
        """Record stages that were not selected as done if they are valid again.

        A stage that runs again may produce the same output, which leaves its readers valid.
        """
        for name, status in assess_all(self._tasks).items():
            if status.state == "done":
                self._states[name] = "done"
        self._write_record()

    def _started(self, task: Task, position: str, signals: SignalForwarder) -> list[RunningStage]:
        """The process of a stage, started; none if the stage is done already."""
        status = assess(task)
        if status.state == "done" and status.lineage is not None:
            self._states[task.name] = "done"
            self._screen.stage(position, task.name, "done", status.lineage.seconds, "already")
            return []
        if status.state in ("stale", "interrupted") and status.reason:
            self._screen.note(f"{task.name}: {status.reason}")
        if status.state == "stale" or (status.state == "interrupted" and not task.kind.resumable):
            self._set_aside(task)
            status = assess(task)
        assert status.inputs is not None, "a stage runs only when all its inputs exist"
        resume = status.state == "interrupted" and (task.folder / "run.json").exists()
        (task.folder / LINEAGE).unlink(missing_ok=True)
        attempt = status.attempt if status.state == "interrupted" else None
        attempt = attempt or StageAttempt(fingerprint=task.fingerprint, inputs=status.inputs)
        start_attempt(task, attempt)
        self._states[task.name] = "running"
        self._write_record()
        self._screen.stage(position, task.name, "resumes" if resume else "runs", None, f"log: {task.log}")
        argv = [*self._program, *task.command(resume=resume)]
        return [RunningStage(task, attempt, position, argv, signals)]

    def _ended(self, stage: RunningStage, signals: SignalForwarder) -> StageFailed | None:
        """Record the end of a stage, with its lineage if it is done. Returns its failure."""
        task, code = stage.task, stage.close()
        failure = None
        if code == 0 and task.output.exists():
            self._write_lineage(task, stage.attempt)
            state = "done"
        elif signals.exit_code is not None:
            state = "interrupted"
        else:
            state, failure = "failed", self._failure(task, code)
        self._states[task.name] = state
        self._write_record()
        self._screen.stage(stage.position, task.name, state, stage.attempt.seconds)
        return failure

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


def _read_by(task: Task) -> list[str]:
    """The stages that a stage reads from."""
    return [item.stage for item in task.inputs if item.stage is not None]
