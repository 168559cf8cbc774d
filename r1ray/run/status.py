"""What a run is doing, and why if it is stuck: from its folder alone, whether its driver is alive or dead."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from r1ray.ledger import LedgerStatus
from r1ray.run.folder import RunFolder
from r1ray.run.ledger import FoundLedger, open_ledger
from r1ray.run.lock import Holder
from r1ray.run.metrics import Row, read_events
from r1ray.util.files import read_json
from r1ray.util.formatting import duration, one_line

ENDED = ("finished", "failed", "interrupted")

SILENT_S = 30.0
"""A driver writes status.json about once a second; without one for so many seconds it is reported as silent."""

MIN_FREE_BYTES = 1 << 20
"""A disk with less free space counts as full; the driver may be unable to write that to status.json."""

TROUBLE = (
    "worker_lost",
    "worker_stale",
    "learner_lost",
    "sync_incomplete",
    "sync_retried",
    "checkpoint_skipped",
    "failed",
    "stalled",
    "groups_dropped",
    "scores_failed",
    "ledger_restored",
    "ledger_copy_failed",
)
"""Kinds of events that explain why a run makes no progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """State of one run. Producer: `read_run_status`. Consumer: `r1ray status`."""

    path: Path
    state: str  # of status.json; "killed" if the driver is dead and recorded no end
    driver: Holder | None  # holder of the lock; None: no driver is alive
    record: dict[str, Any]  # status.json; empty before the first one
    age_s: float | None  # of status.json
    ledger: LedgerStatus | None  # None before the run has one
    ledger_file: FoundLedger | None  # that `ledger` was read from
    trouble: tuple[Row, ...]  # the last events that explain a stop, newest last
    free_bytes: int  # on the disk of the run folder

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers; `why` is the result of `explain`."""
        return {
            "path": str(self.path),
            "state": self.state,
            "driver": None if self.driver is None else asdict(self.driver),
            "status": self.record,
            "age_s": self.age_s,
            "ledger": None if self.ledger is None else asdict(self.ledger),
            "ledger_copied_at": None if self.ledger_file is None else self.ledger_file.copied_at,
            "trouble": list(self.trouble),
            "free_bytes": self.free_bytes,
            "why": explain(self),
        }


def read_run_status(path: Path, *, clock: float | None = None) -> RunStatus:
    """The status of the run in `path`. Raises ConfigError if there is no run, IntegrityError if it is damaged."""
    folder = RunFolder.open(path)
    record = read_json(folder.status) if folder.status.exists() else {}
    driver = folder.holder()
    state = str(record.get("state", "starting"))
    if driver is None and state not in ENDED:
        state = "killed"
    now = time.time() if clock is None else clock
    events = [event for event in read_events(path) if event.get("kind") in TROUBLE]
    with open_ledger(folder) as opened:
        ledger, file = (None, None) if opened is None else (opened[0].status(), opened[1])
    return RunStatus(
        path=path,
        state=state,
        driver=driver,
        record=record,
        age_s=now - float(record["updated"]) if "updated" in record else None,
        ledger=ledger,
        ledger_file=file,
        trouble=tuple(events[-5:]),
        free_bytes=shutil.disk_usage(path).free,
    )


def explain(status: RunStatus) -> list[str]:
    """Why the run is where it is, most important reason first; empty for a run that finished."""
    copy = None if status.ledger_file is None else status.ledger_file.age()
    lines = [] if copy is None else [f"counts of groups are {copy}"]
    if status.state == "finished":
        return lines
    record = status.record
    lines += _end(status)
    if status.state not in ENDED:
        if status.driver is not None and status.age_s is not None and status.age_s > SILENT_S:
            lines.append(f"the driver is alive ({status.driver}) but has been silent for {duration(status.age_s)}")
        queue = (record.get("queue") if status.driver is not None else None) or {}
        ledger_bytes = queue.get("free_bytes")  # None: the ledger is in the run folder
        for free_bytes, disk in ((status.free_bytes, "its disk"), (ledger_bytes, "the disk of run.ledger_dir")):
            if free_bytes is not None and free_bytes < MIN_FREE_BYTES:
                free = f"{free_bytes / 1024:.0f} KiB are free on {disk}"
                lines.append(f"{free}: free space; the run continues by itself within recovery.outage_timeout_s")
        if record.get("message"):
            lines.append(f"paused: {record['message']}" if status.state == "paused" else str(record["message"]))
        if record.get("waiting_for"):
            lines.append(f"{'waiting' if status.driver is not None else 'it waited'} for {record['waiting_for']}")
        if record.get("kind", "train") == "train":  # other runs have neither ledger nor rollout workers
            lines += _in_flight(status.ledger)
            if status.driver is not None and record.get("wanted_workers") != 0:
                lines += _workers(record.get("workers") or [])
        if (sync := record.get("last_sync")) is not None:
            lines.append(f"the last weight sync was of policy {sync['version']}, {duration(sync['age_s'])} before that")
        if record.get("bottleneck") and status.driver is not None:
            lines.append(str(record["bottleneck"]))
    trouble = [event for event in status.trouble if event["kind"] != "failed"]
    if trouble:
        lines.append(f"last trouble: {_event(trouble[-1])}")
    return [one_line(line) for line in lines]


def _end(status: RunStatus) -> list[str]:
    record, command = status.record, RunFolder.open(status.path).identity().use
    resume = f"continue with `r1ray {command} --resume {status.path}`"
    if status.state == "killed":
        process = f"process {record['pid']} on {record['host']}" if "pid" in record else "its process"
        was = record.get("state", "starting")
        return [f"the driver ({process}) was killed while the run was {was}; {resume}"]
    if status.state == "failed":
        return [f"failed: {record.get('message') or 'see events.jsonl'}; {resume}"]
    return [f"interrupted; {resume}"] if status.state == "interrupted" else []


def _in_flight(ledger: LedgerStatus | None) -> list[str]:
    if ledger is None:
        return ["the run has no ledger yet: it is still starting"]
    wanted = ledger.settings.groups_per_step
    lines = [
        f"step {ledger.bound_steps} needs {wanted} groups, {ledger.ready} are ready, {ledger.leased} in flight, "
        f"{ledger.taken} taken and not committed"
    ]
    if ledger.awaited:
        lines.append(
            f"step {ledger.bound_steps} waits for {ledger.awaited} reserved groups in flight, which would be too old "
            "for later steps (queue.reserve_after_stale)"
        )
    if ledger.oldest_lease_s is not None:
        limit = ledger.settings.lease_timeout_s
        overdue = ", overdue" if ledger.oldest_lease_s > limit else ""
        lines.append(
            f"the oldest group in flight is {ledger.oldest_lease_group} at {ledger.oldest_lease_worker}, "
            f"for {duration(ledger.oldest_lease_s)} of {duration(limit)}{overdue}"
        )
    return lines


def _workers(workers: Sequence[dict[str, Any]]) -> list[str]:
    away = [f"{w['id']} {w['state']}" for w in workers if w["state"] != "healthy"]
    if not workers:
        return ["there is no rollout worker yet"]
    return [f"{len(away)} of {len(workers)} workers do not serve: {', '.join(away)}"] if away else []


def _event(event: Row) -> str:
    fields = ", ".join(f"{key} {value}" for key, value in event.items() if key not in ("time", "kind"))
    return f"{event['kind']} at {time.strftime('%H:%M:%S', time.localtime(event['time']))} ({fields})"
