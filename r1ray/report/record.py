"""A run folder, read once: everything that the report and its figures are made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from r1ray.errors import ConfigError
from r1ray.ledger import LedgerReader
from r1ray.run.folder import Identity, RunFolder
from r1ray.run.metrics import Row, read_evaluations, read_events, read_metrics, read_transcripts
from r1ray.util.files import read_json

STARTED = "started"
"""Kind of the event with which a driver begins, of a new run and of a resumed one."""

UNDER_WAY = ("starting", "running", "evaluating", "finishing")
"""States of a run whose driver is alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What stands in one run folder; every list is empty where the run did not get that far."""

    identity: Identity
    config_text: str  # config.yaml as it is
    config: Row
    state: str  # as status.json says, or "killed" where it says that the run goes on and no driver is alive
    metrics: list[Row]  # one a training step
    evaluations: list[Row]  # one a policy and source
    transcripts: list[Row]
    events: list[Row]
    dropped: dict[str, int]  # groups in the ledger, by reason

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

    @property
    def starts(self) -> list[Row]:
        """The events of the drivers' beginnings, the first one first."""
        return [event for event in self.events if event["kind"] == STARTED]


def load_record(run_dir: Path) -> RunRecord:
    """Read a run folder, finished or not. Raises ConfigError for any other folder, IntegrityError for a damaged one."""
    folder = RunFolder.open(run_dir)
    config_text = folder.config.read_text(encoding="utf-8")
    config = yaml.safe_load(config_text)
    if not isinstance(config, dict):
        raise ConfigError(f"{folder.config} holds no configuration: put back what the run was started with")
    return RunRecord(
        identity=folder.identity(),
        config_text=config_text,
        config=config,
        state=_state(folder),
        metrics=read_metrics(run_dir),
        evaluations=read_evaluations(run_dir),
        transcripts=read_transcripts(run_dir),
        events=read_events(run_dir),
        dropped=_dropped(folder),
    )


def _state(folder: RunFolder) -> str:
    if not folder.status.exists():
        return "not started"
    state = str(read_json(folder.status)["state"])
    return "killed" if state in UNDER_WAY and folder.holder() is None else state


def _dropped(folder: RunFolder) -> dict[str, int]:
    if not folder.ledger.exists():
        return {}
    reader = LedgerReader.open(folder.ledger)
    try:
        return reader.status().dropped_by_reason
    finally:
        reader.close()
