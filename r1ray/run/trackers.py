"""TensorBoard and Weights & Biases, which get the same numbers as metrics.jsonl."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from r1ray.errors import ConfigError
from r1ray.util.files import is_disk_full


class TensorBoard:
    """Event files, written by the tensorboard package itself because importing torch's wrapper takes seconds.

    A writer cannot be used after a failed write. While the disk is full, events wait for a new writer with a new file.
    """

    def __init__(self, directory: Path) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._session, self._summary = event_pb2.Event, event_pb2.SessionLog, summary_pb2.Summary
        self._open: Callable[[], Any] = partial(EventFileWriter, str(directory))
        self._writer: Any = None
        self._waiting: list[Any] = []
        self._write()

    def scalars(self, step: int, wall_time: float, values: Mapping[str, float]) -> None:
        """Add one point for each value."""
        points = [self._summary.Value(tag=tag, simple_value=float(value)) for tag, value in values.items()]
        self._write(self._event(step=step, wall_time=wall_time, summary=self._summary(value=points)))

    def restart(self, step: int, wall_time: float) -> None:
        """Make TensorBoard drop the earlier points of `step` and later steps."""
        start = self._session(status=self._session.START)
        self._write(self._event(step=step, wall_time=wall_time, session_log=start))

    def _write(self, *events: Any) -> None:
        self._waiting += events
        try:
            self._writer = self._writer or self._open()
            for event in self._waiting:
                self._writer.add_event(event)
            self._writer.flush()
            self._waiting.clear()
        except OSError as e:
            if not is_disk_full(e):
                raise
            self._writer = None

    def close(self) -> None:
        """Flush and close the newest file."""
        if self._writer is not None:
            self._writer.close()


def check_wandb(project: str | None) -> None:
    """Raise ConfigError if `logging.wandb_project` is set and the wandb package is missing."""
    if project is not None and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            f"logging.wandb_project={project!r} needs the package wandb: run `pip install wandb`, or set the key to "
            "null"
        )


def start_wandb(run_dir: Path, project: str) -> Any:
    """Start or resume the run of a run folder. Raises ConfigError if the package is missing."""
    check_wandb(project)
    wandb = importlib.import_module("wandb")
    run = wandb.init(project=project, name=run_dir.name, dir=str(run_dir), id=_run_id(run_dir), resume="allow")
    run.define_metric("*", step_metric="step")  # its own step can only increase; ours may go back
    return run


def _run_id(run_dir: Path) -> str:
    return str(json.loads((run_dir / "run.json").read_text())["run_id"])
