"""A run folder, read once: everything that the report and its figures are made of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from r1ray.errors import ConfigError
from r1ray.metrics import Row, read_evaluations, read_events, read_metrics, read_transcripts

RUN_FILES = ("run.json", "config.yaml")
"""Written before anything else: a folder without them is not a run."""

STARTS = ("started", "resumed")
"""Kinds of the events with which a driver begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What stands in one run folder; every list is empty where the run did not get that far."""

    run_dir: Path
    facts: Row  # run.json
    config_text: str  # config.yaml as it is
    config: Row
    metrics: list[Row]  # one a training step
    evaluations: list[Row]  # one a policy and source
    transcripts: list[Row]
    events: list[Row]
    status: Row  # status.json; {} where it was never written

    def setting(self, key: str) -> Any:
        """The value of a dotted configuration key; None where the configuration has no such key."""
        value: Any = self.config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return value

    @property
    def steps(self) -> int:
        """Training steps done: the version of the newest recorded policy."""
        return self.metrics[-1]["step"] + 1 if self.metrics else 0

    @property
    def sources(self) -> list[str]:
        """Held-out sources that were evaluated, the primary one (first in the configuration) first."""
        configured = [source["name"] for source in self.setting("data.evaluation") or []]
        found = list(dict.fromkeys(row["source"] for row in self.evaluations))
        return [s for s in configured if s in found] + [s for s in found if s not in configured]

    def evaluated(self, source: str | None) -> list[Row]:
        """The evaluations on one source, by policy."""
        return [row for row in self.evaluations if row["source"] == source]


def load_record(run_dir: Path) -> RunRecord:
    """Read a run folder, finished or not. Raises ConfigError for any other folder, IntegrityError for a damaged one."""
    missing = [name for name in RUN_FILES if not (run_dir / name).is_file()]
    if missing:
        raise ConfigError(
            f"{run_dir} is not a run folder: it has no {' and no '.join(missing)}. Name the folder of a run"
        )
    config_text = (run_dir / "config.yaml").read_text()
    status = run_dir / "status.json"
    return RunRecord(
        run_dir=run_dir,
        facts=json.loads((run_dir / "run.json").read_text()),
        config_text=config_text,
        config=yaml.safe_load(config_text) or {},
        metrics=read_metrics(run_dir),
        evaluations=read_evaluations(run_dir),
        transcripts=read_transcripts(run_dir),
        events=read_events(run_dir),
        status=json.loads(status.read_text()) if status.exists() else {},
    )
