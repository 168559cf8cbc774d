"""Profile a few training steps (`r1ray train --profile`): traces of all ranks, Ray's timeline, and a table.

first step of a learner --> start --> the wanted steps --> stop, traces --> one more step --> table
warm-up                     between two steps, whose time it is not counted in                (needs the records of
                                                                                              the last profiled one)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from r1ray.control.handles import Handle, LearnerApi, RankProfile
from r1ray.control.learners import LearnerGroup
from r1ray.errors import R1RayError
from r1ray.run.folder import RunFolder
from r1ray.run.metrics import read_events, read_metrics
from r1ray.run.profile import STEP_TABLE, TIMELINE, step_table
from r1ray.util.files import write_atomic


class StepProfile:
    """`before` and `after` surround every training step; `close` comes at the end of the run.

    A learner that is lost takes its profile with it: the next one begins with a warm-up again.
    """

    def __init__(
        self,
        steps: int,
        *,
        folder: RunFolder,
        deadline_s: float,
        timeline: Callable[[Path], None],
        show: Callable[[str], None],
        on_event: Callable[..., None],
    ) -> None:
        """`deadline_s`: for the traces to be written (deadlines.checkpoint_s). `timeline` writes Ray's into a file."""
        self._wanted = steps
        self._folder = folder
        self._deadline_s = deadline_s
        self._timeline = timeline
        self._show = show
        self._event = on_event
        self._group: LearnerGroup[LearnerApi] | None = None
        self._ranks: list[Handle[LearnerApi]] = []  # that record
        self._steps: list[int] = []  # profiled
        self._found: list[RankProfile] | None = None  # of the ranks, once they have stopped
        self._written = False

    def before(self) -> None:
        """A step is about to be trained. Raises LearnerLostError."""
        if self._found is None and self._recording and len(self._steps) >= self._wanted:
            self._stop()

    def after(self, step: int, group: LearnerGroup[LearnerApi]) -> None:
        """Step `step` was trained. Raises LearnerLostError."""
        if self._found is not None:
            self._write()
            return
        self._group = group
        if self._recording:
            self._steps.append(step)
            return
        self._folder.profile.mkdir(exist_ok=True)
        what = "start of the profile (deadlines.checkpoint_s)"
        group.call(lambda rank: rank.start(LearnerApi.start_profile), deadline_s=self._deadline_s, what=what)
        self._ranks, self._steps = group.ranks, []

    def close(self) -> None:
        """The run has ended: stop and write the table, unless that is done. A failure is shown, it changes nothing."""
        try:
            if self._found is None and self._recording and self._steps:
                self._stop()
        except R1RayError as e:
            self._show(f"no profile: {e}")
            return
        if self._found is not None:
            self._write()
        else:
            self._show("no profile: the run ended before the end of a step after the warm-up step: more run.steps")

    @property
    def _recording(self) -> bool:
        """Whether the present learner records: not before its warm-up."""
        return self._group is not None and bool(self._ranks) and self._group.ranks is self._ranks

    def _stop(self) -> None:
        assert self._group is not None
        folder = str(self._folder.profile.absolute())
        self._found = self._group.call(
            lambda rank: rank.start(LearnerApi.stop_profile, folder),
            deadline_s=self._deadline_s,
            what="traces of the profile to be written (deadlines.checkpoint_s)",
        )

    def _write(self) -> None:
        if self._written:
            return
        self._written = True
        assert self._found is not None
        problems = [found["problem"] for found in self._found if found["problem"] is not None]
        try:
            self._timeline(self._folder.profile / TIMELINE)
        except Exception as e:  # Ray's own, of any kind: the table and the traces are there
            problems.append(f"{TIMELINE} was not written: {type(e).__name__}: {e}")
        path = self._folder.path
        rows = [row for row in read_metrics(path) if row["step"] in self._steps]
        lines = step_table(rows, [found["seconds"] for found in self._found], self._checkpoints())
        write_atomic(self._folder.profile / STEP_TABLE, ("\n".join(lines) + "\n").encode())
        self._event("profiled", steps=self._steps, folder=str(self._folder.profile), problems=problems)
        for line in [*lines, *problems, f"Traces for https://ui.perfetto.dev: {self._folder.profile}"]:
            if line:
                self._show(line)

    def _checkpoints(self) -> list[float]:
        """Seconds of each checkpoint after a profiled step."""
        events: list[dict[str, Any]] = [e for e in read_events(self._folder.path) if e["kind"] == "checkpoint"]
        return [e["seconds"] for e in events if e["policy_version"] - 1 in self._steps]
