"""Audit the ledger of a run folder against the folder's own checkpoints."""

from __future__ import annotations

from pathlib import Path

from r1ray.ledger.audit import LEDGER_NAME, AuditReport, audit
from r1ray.run.checkpoints import find_latest, step_of


def audit_run(run_dir: Path) -> AuditReport:
    """Check the ledger of a run folder, whether its driver is alive or dead. Reads every file of the newest checkpoint.

    Raises IntegrityError if the ledger is missing or cannot be read at all.
    """

    def complete(run_id: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
        found = find_latest(run_dir / "checkpoints", run_id=run_id)
        return () if found.path is None else (step_of(found.path),), found.warnings

    return audit(run_dir / LEDGER_NAME, complete)
