"""Audit the ledger of a run folder against the folder's own checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from r1ray.errors import IntegrityError
from r1ray.ledger.audit import AuditReport, audit
from r1ray.run.checkpoints import find_latest, step_of
from r1ray.run.folder import RunFolder
from r1ray.run.ledger import find_ledger


def audit_run(run_dir: Path) -> AuditReport:
    """Check the ledger of a run folder, whether its driver is alive or dead. Reads every file of the newest checkpoint.

    On a machine that does not have the ledger, its copy in the run folder is checked.

    Raises IntegrityError if the ledger is missing or cannot be read at all.
    """

    def complete(run_id: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
        found = find_latest(run_dir / "checkpoints", run_id=run_id)
        return () if found.path is None else (step_of(found.path),), found.warnings

    ledger = find_ledger(RunFolder(run_dir))
    if ledger is None:
        raise IntegrityError(f"{run_dir}: there is no ledger: give the folder of a run")
    return replace(audit(ledger.path, complete), copied_at=ledger.copied_at, read_from=ledger.age())
