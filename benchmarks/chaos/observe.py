"""A run as seen from outside: plain SQL on its ledger, and its JSON files. Imports nothing of r1ray."""

from __future__ import annotations

import json
import math
import sqlite3
import statistics
from contextlib import closing
from pathlib import Path
from typing import Any


class Observed:
    """The run folder `run`, which may not exist yet; everything is empty or zero then."""

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
        """Groups that are leased, of one worker or of all."""
        query = "SELECT COUNT(*) FROM groups WHERE state = 'leased' AND (?1 IS NULL OR worker_id = ?1)"
        return int(self._number(query, worker) or 0)

    def step_under_way(self) -> int | None:
        """The step whose batch is taken and whose policy was not published since the learner last started."""
        bound, published = (
            self._number("SELECT MAX(step) + 1 FROM steps"),
            self._number("SELECT version FROM published ORDER BY incarnation DESC, version DESC LIMIT 1"),
        )
        return None if bound is None or published is None or published >= bound else int(published)

    def steps_bound(self) -> int:
        """How many steps have their batch."""
        return int(self._number("SELECT MAX(step) + 1 FROM steps") or 0)

    def tokens_again(self, since: float) -> float | None:
        """When the first group that was leased after `since` was scored, in seconds since the epoch."""
        return self._number("SELECT MIN(scored_at) FROM groups WHERE leased_at > ?", since)

    def step_again(self, since: float) -> float | None:
        """When the first policy was published after `since` that a step had made: not one out of a checkpoint."""
        return self._number(
            "SELECT MIN(published_at) FROM published AS p WHERE published_at > ?"
            " AND version > (SELECT MIN(version) FROM published WHERE incarnation = p.incarnation)",
            since,
        )

    def log_size(self) -> tuple[int, int]:
        """Changes with every transaction: modification time and size of the write-ahead log."""
        about = (self.run / "ledger.sqlite-wal").stat()
        return about.st_mtime_ns, about.st_size

    def redone(self) -> dict[str, int]:
        """Groups whose work was thrown away or handed on, by reason."""
        return dict(self._rows("SELECT reason, COUNT(*) FROM groups WHERE state = 'dropped' GROUP BY reason"))

    def groups(self) -> int:
        """All groups ever leased."""
        return int(self._number("SELECT COUNT(*) FROM groups") or 0)

    # -- files --------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """status.json; it is replaced as a whole, about once a second."""
        path = self.run / "status.json"
        status: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        return status

    def waiting_for(self) -> str:
        return str(self.status().get("waiting_for", ""))

    def serving(self) -> dict[str, int]:
        """Process id by name of the rollout workers that serve a policy."""
        pids = {e["worker"]: int(e["pid"]) for e in self.events("worker_ready")}
        workers = self.status().get("workers", [])
        return {w["id"]: pids[w["id"]] for w in workers if w["state"] == "healthy" and w["id"] in pids}

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Events of one kind, oldest first."""
        return [e for e in self._lines("events.jsonl") if e["kind"] == kind]

    def evaluations(self) -> dict[str, dict[str, float]]:
        """By source, the figures of the last policy that was evaluated."""
        names = ("step", "accuracy", "accuracy_se", "greedy_accuracy")
        lines = [e for e in self._lines("evaluations.jsonl") if "source" in e]
        return {e["source"]: {name: e[name] for name in names} for e in lines}

    def reward(self) -> dict[str, float]:
        """Mean reward of the last quarter of the steps, and its standard error by how the steps differ."""
        rows = {row["step"]: row["reward/mean"] for row in self._lines("metrics.jsonl") if "reward/mean" in row}
        if len(rows) < 2:
            return {"steps": float(len(rows))}
        last = [rows[step] for step in sorted(rows)[-max(2, len(rows) // 4) :]]
        error = statistics.stdev(last) / math.sqrt(len(last))
        return {"steps": len(last), "mean": round(statistics.fmean(last), 4), "se": round(error, 4)}

    def steps_again(self) -> int:
        """How many steps were trained more than once, counted as often as they were repeated."""
        steps = [row["step"] for row in self._lines("metrics.jsonl") if "step" in row]
        return len(steps) - len(set(steps))

    def _lines(self, name: str) -> list[dict[str, Any]]:
        """A last line that is still being written is left out."""
        path = self.run / name
        return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []

    def half_written_checkpoint(self) -> bool:
        return any((self.run / "checkpoints").glob(".partial-*"))
