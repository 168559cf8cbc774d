"""Batches of the trained steps, one file per checkpoint, for a ledger that is restored from an older copy.

    batches/step_000040.json     the steps from the checkpoint before up to step 39

A file is complete before its checkpoint is. The copy of the ledger may be older than the checkpoint; these files then
say which groups the checkpoint was trained on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from r1ray.errors import DiskFull, IntegrityError
from r1ray.types import BatchManifest, GroupSummary
from r1ray.util.files import is_disk_full, read_json, write_atomic

FOLDER = "batches"


class BatchRecords:
    """Collects the manifests of trained steps and writes them before a checkpoint."""

    def __init__(self, run_dir: Path) -> None:
        self._folder = run_dir / FOLDER
        self._steps: dict[int, BatchManifest] = {}

    def add(self, manifest: BatchManifest) -> None:
        """A step is trained."""
        self._steps[manifest.step] = manifest

    def write(self, policy_version: int) -> None:
        """Write the steps before `policy_version` that are not written yet, durably. Raises DiskFull."""
        steps = {step: m for step, m in self._steps.items() if step < policy_version}
        content = {str(step): [asdict(group) for group in m.groups] for step, m in sorted(steps.items())}
        try:
            self._folder.mkdir(exist_ok=True)
            write_atomic(self._file(policy_version), json.dumps(content).encode())
        except OSError as e:
            if is_disk_full(e):
                raise DiskFull(f"{self._folder}: no space left to write ({e})") from e
            raise

    def committed(self, policy_version: int, known_steps: int) -> None:
        """The checkpoint is complete, and the copy of the ledger has the first `known_steps` steps itself."""
        self._steps = {step: m for step, m in self._steps.items() if step >= policy_version}
        for version, file in self._files():
            if version <= known_steps:
                file.unlink(missing_ok=True)

    def back_to(self, policy_version: int) -> None:
        """Training continues from this policy: forget later steps, whose checkpoints are gone."""
        self._steps.clear()
        for version, file in self._files():
            if version > policy_version:
                file.unlink(missing_ok=True)

    def read(self, first: int, end: int) -> list[BatchManifest]:
        """The batches of the steps `first` to `end - 1`. Raises IntegrityError if one is missing."""
        found: dict[int, BatchManifest] = {}
        for version, file in self._files():
            if version > end:
                continue  # of a checkpoint that is not the one to continue from
            for step, groups in read_json(file).items():
                found[int(step)] = BatchManifest(step=int(step), groups=tuple(_summary(group) for group in groups))
        if missing := [step for step in range(first, end) if step not in found]:
            raise IntegrityError(
                f"the ledger knows the batches of the first {first} steps only, checkpoint step_{end:06d} was trained "
                "on"
                f" {end}, and {self._folder} lacks step {missing[0]}: restore the folder or the ledger from a backup"
            )
        return [found[step] for step in range(first, end)]

    def _files(self) -> list[tuple[int, Path]]:
        """(policy version, file), the oldest first."""
        return sorted((int(file.stem[5:]), file) for file in self._folder.glob("step_*.json"))

    def _file(self, policy_version: int) -> Path:
        return self._folder / f"step_{policy_version:06d}.json"


def _summary(group: Mapping[str, Any]) -> GroupSummary:
    tuples = {key: tuple(group[key]) for key in ("completion_tokens", "rewards")}
    return GroupSummary(**{**group, **tuples})
