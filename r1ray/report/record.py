"""A run folder, read once, for reports and figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1ray.errors import ConfigError
from r1ray.run.bottleneck import find_bottleneck
from r1ray.run.folder import RunFolder
from r1ray.run.identity import RunIdentity
from r1ray.run.ledger import open_ledger
from r1ray.run.metrics import (
    Row,
    read_evaluations,
    read_events,
    read_heldout_transcripts,
    read_metrics,
    read_transcripts,
)
from r1ray.util.files import read_json
from r1ray.util.yaml_text import read_yaml

STARTED = "started"
"""Kind of the event that a driver writes when it starts or resumes a run."""

ACTIVE_STATES = ("starting", "running", "evaluating", "finishing")
"""States that status.json has only while the driver is alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The content of one run folder. Lists are empty if the run did not get that far."""

    identity: RunIdentity
    config_text: str  # content of config.yaml
    config: Row
    state: str  # of status.json, or "killed" if that is an active state and no driver is alive
    metrics: list[Row]  # one per training step
    evaluations: list[Row]  # one per policy and source; `parts` as columns `part/<reward>`
    transcripts: list[Row]
    heldout_transcripts: list[Row]  # responses of the evaluations to the first problems of each source
    events: list[Row]
    dropped: dict[str, int]  # groups in the ledger, by reason
    ledger_age: str | None = None  # which copy of the ledger `dropped` is from; None: the ledger itself

    def setting(self, key: str) -> Any:
        """Return the value of a dotted configuration key; None if there is no such key."""
        value: Any = self.config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return value

    @property
    def bottleneck(self) -> str | None:
        """What limited the speed of the last steps, in one sentence; None if the run does not show it."""
        keys = ("learner.ranks", "rollout.workers", "queue.max_staleness")
        ranks, workers, staleness = (self.setting(key) for key in keys)
        if None in (ranks, workers, staleness):
            return None
        replays = self.setting("replay.run") is not None
        found = find_bottleneck(
            self.metrics,
            ranks=ranks,
            workers=0 if replays else workers,
            max_staleness=staleness,
            sequence_parallel=self.setting("learner.sequence_parallel") or 1,
        )
        return None if found is None else found.text

    @property
    def steps(self) -> int:
        """Number of finished training steps, which is the version of the newest recorded policy."""
        return self.metrics[-1]["step"] + 1 if self.metrics else 0

    @property
    def sources(self) -> list[str]:
        """Evaluated held-out sources, the primary one (first in the configuration) first."""
        configured = [source["name"] for source in self.setting("data.evaluation") or []]
        found = list(dict.fromkeys(row["source"] for row in self.evaluations))
        return [s for s in configured if s in found] + [s for s in found if s not in configured]

    def evaluated(self, source: str | None) -> list[Row]:
        """Return the evaluations on one source, in order of policy version."""
        return [row for row in self.evaluations if row["source"] == source]

    @property
    def heldout_parts(self) -> list[str]:
        """Rewards, other than accuracy and format, that evaluations measured."""
        return sorted({name for row in self.evaluations for name in row.get("parts", {})})

    @property
    def starts(self) -> list[Row]:
        """Events of the starts of drivers, in order."""
        return [event for event in self.events if event["kind"] == STARTED]


def load_record(run_dir: Path) -> RunRecord:
    """Read a run folder in any state. Raises ConfigError for any other folder, IntegrityError for a damaged one."""
    folder = RunFolder.open(run_dir)
    config_text = folder.config.read_text(encoding="utf-8")
    config = read_yaml(config_text)
    if not isinstance(config, dict):
        raise ConfigError(f"{folder.config} contains no configuration: restore the file that the run was started with")
    dropped, ledger_age = _dropped(folder)
    return RunRecord(
        identity=folder.identity(),
        config_text=config_text,
        config=config,
        state=_state(folder),
        metrics=read_metrics(run_dir),
        evaluations=[_with_part_columns(row) for row in read_evaluations(run_dir)],
        transcripts=read_transcripts(run_dir),
        heldout_transcripts=read_heldout_transcripts(run_dir),
        events=read_events(run_dir),
        dropped=dropped,
        ledger_age=ledger_age,
    )


def _with_part_columns(row: Row) -> Row:
    return row | {f"part/{name}": value for name, value in row.get("parts", {}).items()}


def _state(folder: RunFolder) -> str:
    if not folder.status.exists():
        return "not started"
    state = str(read_json(folder.status)["state"])
    return "killed" if state in ACTIVE_STATES and folder.holder() is None else state


def _dropped(folder: RunFolder) -> tuple[dict[str, int], str | None]:
    with open_ledger(folder) as opened:
        return ({}, None) if opened is None else (opened[0].status().dropped_by_reason, opened[1].age())
