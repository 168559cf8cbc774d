"""Observe a run from outside: SQL on its ledger, and its JSON files. Imports nothing from r1ray."""

from __future__ import annotations

import json
import math
import sqlite3
import statistics
from contextlib import closing
from pathlib import Path
from typing import Any


class ObservedRun:
    """The run folder `run`. If it does not exist yet, everything is empty or zero."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        file = self.run / "ledger.sqlite"
        if not file.exists():
            return []
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30.0)) as db:
            return db.execute(query, values).fetchall()

    def _number(self, query: str, *values: object) -> float | None:
        rows = self._rows(query, *values)
        return rows[0][0] if rows else None

    # -- the ledger ---------------------------------------------------------------------------------------------

    def leased(self, worker: str | None = None) -> int:
        """Return the number of leased groups, of one worker or of all."""
        query = "SELECT COUNT(*) FROM groups WHERE state = 'leased' AND (?1 IS NULL OR worker_id = ?1)"
        return int(self._number(query, worker) or 0)

    def current_step(self) -> int | None:
        """Return the step whose batch was taken but whose policy has not been published, or None."""
        bound, published = (
            self._number("SELECT MAX(step) + 1 FROM steps"),
            self._number("SELECT version FROM published ORDER BY incarnation DESC, version DESC LIMIT 1"),
        )
        return None if bound is None or published is None or published >= bound else int(published)

    def steps_with_batch(self) -> int:
        """Return the number of steps that have a batch."""
        return int(self._number("SELECT MAX(step) + 1 FROM steps") or 0)

    def first_tokens_after(self, since: float) -> float | None:
        """Return when the first group leased after `since` was scored, in seconds since the epoch."""
        return self._number("SELECT MIN(scored_at) FROM groups WHERE leased_at > ?", since)

    def first_step_after(self, since: float) -> float | None:
        """Return when the first policy of a step, not of a checkpoint, was published after `since`."""
        return self._number(
            "SELECT MIN(published_at) FROM published AS p WHERE published_at > ?"
            " AND version > (SELECT MIN(version) FROM published WHERE incarnation = p.incarnation)",
            since,
        )

    def log_size(self) -> tuple[int, int]:
        """Return modification time and size of the write-ahead log, which change with every transaction."""
        about = (self.run / "ledger.sqlite-wal").stat()
        return about.st_mtime_ns, about.st_size

    def dropped_groups(self) -> dict[str, int]:
        """Return the number of dropped groups by reason."""
        return dict(self._rows("SELECT reason, COUNT(*) FROM groups WHERE state = 'dropped' GROUP BY reason"))

    def groups(self) -> int:
        """Return the number of groups ever leased."""
        return int(self._number("SELECT COUNT(*) FROM groups") or 0)

    # -- files --------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return status.json, which is replaced atomically about once a second."""
        path = self.run / "status.json"
        status: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        return status

    def waiting_for(self) -> str:
        """Return what the run waits for, as in status.json."""
        return str(self.status().get("waiting_for", ""))

    def serving(self) -> dict[str, int]:
        """Return the process ids of healthy rollout workers by name."""
        pids = {e["worker"]: int(e["pid"]) for e in self.events("worker_ready")}
        workers = self.status().get("workers", [])
        return {w["id"]: pids[w["id"]] for w in workers if w["state"] == "healthy" and w["id"] in pids}

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of one kind, oldest first."""
        return [e for e in self._lines("events.jsonl") if e["kind"] == kind]

    def evaluations(self) -> dict[str, dict[str, float]]:
        """Return the figures of the last evaluated policy by source."""
        names = ("step", "accuracy", "accuracy_se", "greedy_accuracy")
        lines = [e for e in self._lines("evaluations.jsonl") if "source" in e]
        return {e["source"]: {name: e[name] for name in names} for e in lines}

    def reward(self) -> dict[str, float]:
        """Return the mean reward of the last quarter of the steps, and its standard error over steps."""
        rows = {row["step"]: row["reward/mean"] for row in self._lines("metrics.jsonl") if "reward/mean" in row}
        if len(rows) < 2:
            return {"steps": float(len(rows))}
        last = [rows[step] for step in sorted(rows)[-max(2, len(rows) // 4) :]]
        error = statistics.stdev(last) / math.sqrt(len(last))
        return {"steps": len(last), "mean": round(statistics.fmean(last), 4), "se": round(error, 4)}

    def repeated_steps(self) -> int:
        """Return the number of repetitions of training steps."""
        steps = [row["step"] for row in self._lines("metrics.jsonl") if "step" in row]
        return len(steps) - len(set(steps))

    def _lines(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of a file, without a last line that is still being written."""
        path = self.run / name
        return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []

    def half_written_checkpoint(self) -> bool:
        """Return whether a checkpoint is being written."""
        return any((self.run / "checkpoints").glob(".partial-*"))
