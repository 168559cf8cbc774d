"""Records of a run: metrics, evaluations, transcripts, events. One JSON object per line.

Writer: the driver, which holds the lock of the run folder. Readers: report, status, inspect, tests.

A resume, a learner restart and a rollback repeat steps from a checkpoint. `rewind(step)` then appends the marker
`{"rewind": step, "time": ...}`, and readers ignore the earlier lines of the repeated steps. So nothing is counted
twice, and no line is ever deleted. Worked example: steps 0..6 are written, the newest checkpoint is policy 5, and the
run resumes with `rewind(5)`. The metrics of steps 5 and 6 are void; the evaluation of policy 5 remains valid.

NaN and infinities, which JSON does not have, are written as the strings "NaN", "Infinity", "-Infinity" (as protobuf's
JSON mapping does) and read back as floats.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from r1ray.errors import IntegrityError
from r1ray.run.trackers import TensorBoard, start_wandb
from r1ray.types import ScoredGroup
from r1ray.util.files import is_disk_full

Row = dict[str, Any]

METRICS = "metrics.jsonl"
EVALUATIONS = "evaluations.jsonl"
TRANSCRIPTS = "transcripts.jsonl"
HELDOUT_TRANSCRIPTS = "heldout_transcripts.jsonl"
EVENTS = "events.jsonl"
_REWOUND = (METRICS, EVALUATIONS, TRANSCRIPTS, HELDOUT_TRANSCRIPTS)

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_MARKER = "rewind"


class MetricsWriter:
    """Appends to the JSON lines files of a run folder, and sends the numbers to TensorBoard and Weights & Biases."""

    def __init__(
        self,
        run_dir: Path,
        *,
        tensorboard: bool = True,
        wandb_project: str | None = None,
        on_event: Callable[[Row], object] = lambda event: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the files for appending, and remove an unfinished last line. `on_event` is called with each event.

        Raises ConfigError if `wandb_project` is set and the wandb package is missing.
        """
        self._clock = clock
        self.listeners = [on_event]  # called in turn with each event
        self._wandb = start_wandb(run_dir, wandb_project) if wandb_project else None
        self._board = TensorBoard(run_dir / "tensorboard") if tensorboard else None
        self._files = {name: _Lines(run_dir / name) for name in (*_REWOUND, EVENTS)}

    def step(self, step: int, metrics: Mapping[str, float]) -> Row:
        """Record the metrics of training step `step`; returns the line as written."""
        row: Row = {"step": step, "time": self._clock(), **metrics}
        self._append(METRICS, row)
        self._plot(step, metrics)
        return row

    def evaluation(self, row: Mapping[str, Any]) -> None:
        """Record the evaluation of policy `row["step"]` on `row["source"]`."""
        self._append(EVALUATIONS, {"time": self._clock(), **row})
        prefix = f"evaluation/{row['source']}/"
        numbers = {prefix + k: float(v) for k, v in row.items() if k != "step" and _is_number(v)}
        self._plot(row["step"], numbers)

    def transcript(self, row: Mapping[str, Any]) -> None:
        """Record one sampled completion of step `row["step"]`."""
        self._append(TRANSCRIPTS, row)

    def heldout_transcript(self, row: Mapping[str, Any]) -> None:
        """Record one response of the evaluation of policy `row["step"]`."""
        self._append(HELDOUT_TRANSCRIPTS, row)

    def event(self, kind: str, **fields: Any) -> None:
        """Record an event of the given kind with its fields."""
        event = {"time": self._clock(), "kind": kind, **fields}
        self._append(EVENTS, event)
        for listener in self.listeners:
            listener(event)

    def rewind(self, step: int) -> None:
        """Record that training continues from policy `step`: records of step `step` and later are void."""
        for name in _REWOUND:
            self._append(name, {_MARKER: step, "time": self._clock()})
        if self._board:
            self._board.restart(step, self._clock())

    def close(self) -> None:
        """Flush and close everything; a second call does nothing."""
        with contextlib.ExitStack() as stack:  # closes the others even if one fails
            for file in self._files.values():
                stack.callback(file.close)
            if self._board:
                stack.callback(self._board.close)
            if self._wandb:
                stack.callback(self._wandb.finish)
        self._board = self._wandb = None

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        # A lone surrogate, which UTF-8 refuses, becomes its \\u escape: valid JSON that reads back the same.
        line = json.dumps(jsonable(row), ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
        self._files[name].write(line + b"\n")

    def _plot(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._board:
            self._board.scalars(step, self._clock(), metrics)
        if self._wandb:
            self._wandb.log({"step": step, **metrics})


class _Lines:
    """A file of complete lines, for appending. While the disk is full, lines wait in memory for the next write."""

    def __init__(self, path: Path) -> None:
        """Open the file and remove an unfinished last line."""
        self._file = path.open("ab", buffering=0)
        self._waiting = bytearray()
        whole = path.read_bytes().rfind(b"\n") + 1
        if whole < self._file.tell():
            self._file.truncate(whole)
            self._file.seek(0, os.SEEK_END)

    def write(self, line: bytes) -> None:
        self._waiting += line
        try:
            while self._waiting:
                del self._waiting[: self._file.write(self._waiting)]
        except OSError as e:
            if not is_disk_full(e):
                raise

    def close(self) -> None:
        self._file.close()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def jsonable(value: Any) -> Any:
    """`value` in JSON types: numpy scalars become numbers, non-finite floats their names."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, str | bool) or value is None:
        return value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _decode_numbers(row: Row) -> Row:
    return {k: _NON_FINITE.get(v, v) if isinstance(v, str) else v for k, v in row.items()}


def transcript_row(step: int, i: int, group: ScoredGroup) -> Row:
    """The row of one completion of a group: the i-th, modulo the size of the group."""
    i %= len(group.scores)
    completion, score, prompt = group.rollout.completions[i], group.scores[i], group.rollout.prompt
    return {
        "step": step,
        "source": prompt.task,
        "prompt_id": prompt.prompt_id,
        "prompt": prompt.messages[-1]["content"],
        "text": completion.text,
        "reward": score.reward,
        "parts": score.parts,
        "finish_reason": completion.finish_reason,
        "tokens": len(completion.token_ids),
    }


def read_metrics(run_dir: Path) -> list[Row]:
    """One row per training step, ordered by step; the last line of a step counts."""
    by_step = {row["step"]: _decode_numbers(row) for row in _current(run_dir / METRICS, lambda step, to: step < to)}
    return [by_step[step] for step in sorted(by_step)]


def read_evaluations(run_dir: Path) -> list[Row]:
    """One row per evaluated policy and source, ordered by step; `time` is the end of the evaluation."""
    # The evaluation of policy n remains valid when training goes back to policy n.
    rows = _current(run_dir / EVALUATIONS, lambda step, to: step <= to)
    last = {(row["step"], row["source"]): _decode_numbers(row) for row in rows}
    return sorted(last.values(), key=lambda row: row["step"])


def read_transcripts(run_dir: Path) -> list[Row]:
    """The recorded completions, ordered by step."""
    return sorted(_current(run_dir / TRANSCRIPTS, lambda step, to: step < to), key=lambda row: row["step"])


def read_heldout_transcripts(run_dir: Path) -> list[Row]:
    """The recorded responses of evaluations, one per policy, source and problem, ordered by policy."""
    rows = _current(run_dir / HELDOUT_TRANSCRIPTS, lambda step, to: step <= to)  # as in read_evaluations
    last = {(row["step"], row["source"], row["prompt_id"]): row for row in rows}
    return sorted(last.values(), key=lambda row: row["step"])


def read_events(run_dir: Path) -> list[Row]:
    """All events in order; a rewind voids none of them."""
    return list(_lines(run_dir / EVENTS))


def _current(path: Path, survives: Callable[[int, int], bool]) -> list[Row]:
    """The rows that no rewind has voided; `survives(step, to)`: whether a row of `step` survives a rewind to `to`."""
    rows: list[Row] = []
    for row in _lines(path):
        if _MARKER in row:
            rows = [kept for kept in rows if survives(kept["step"], row[_MARKER])]
        else:
            rows.append(row)
    return rows


def _lines(path: Path) -> Iterator[Row]:
    """The rows of a JSON lines file; none if the file does not exist yet. An unfinished last line is ignored."""
    if not path.exists():
        return
    for i, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
        except ValueError as e:
            raise IntegrityError(f"{path}, line {i} is not JSON ({e}): repair or remove that line") from e
        if not isinstance(row, dict):
            raise IntegrityError(f"{path}, line {i}: expected an object, got a {type(row).__name__}: remove that line")
        yield row
