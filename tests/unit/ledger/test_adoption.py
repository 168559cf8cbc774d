"""A run that continues from a copy of any age and from any checkpoint trains no prompt twice and loses none."""

from __future__ import annotations

import random
import shutil
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from r1ray.errors import IntegrityError
from r1ray.ledger import Ledger, audit
from r1ray.ledger.copies import write_copy
from r1ray.ledger.provide import provide
from r1ray.ledger.storage import COPY_NAME
from r1ray.run.batch_records import BatchRecords
from r1ray.types import BatchManifest
from tests.unit.ledger_support import RUN, Clock, fast_folder, new_ledger, payload, rules

STEPS = 9


@dataclass
class Life:
    """A run of `STEPS` steps with checkpoints, records of batches and copies at random moments."""

    folder: Path
    seed: int
    trained: dict[int, list[int]] = field(default_factory=dict)  # step -> prompt indices
    copies: list[Path] = field(default_factory=list)
    checkpoints: list[int] = field(default_factory=list)

    def live(self) -> None:
        self.random = random.Random(self.seed)
        (self.folder / "run" / "checkpoints").mkdir(parents=True)
        records = BatchRecords(self.folder / "run")
        with closing(new_ledger(self.folder, Clock(), max_requeues=99)) as self.ledger:
            for step in range(STEPS):
                manifest = self.batch(step)
                self.trained[step] = [group.index for group in manifest.groups]
                records.add(manifest)
                self.maybe_copy(0.4)
                if self.random.random() < 0.5:
                    records.write(step + 1)
                    records.committed(step + 1, 0)  # no copy knows it: every copy may be the one that is left
                    self.checkpoints.append(step + 1)
                    self.maybe_copy(0.3)  # killed between the checkpoint and its commit
                    self.ledger.commit(step + 1, f"step_{step + 1:06d}")
                    self.maybe_copy(0.5)

    def maybe_copy(self, chance: float) -> None:
        if self.random.random() < chance:
            target = self.folder / f"copy-{len(self.copies)}.sqlite"
            self.ledger.stamp_copy()
            write_copy(self.folder / "ledger.sqlite", target, RUN)
            self.copies.append(target)

    def batch(self, step: int) -> BatchManifest:
        while (manifest := self.ledger.take(step)) is None:
            lagging = max(0, step - self.random.randint(0, 2))
            worker = self.random.choice(["w0", "w1"])
            leases = self.ledger.lease(worker, lagging, self.random.randint(1, 3))
            if not leases:  # kept leases are in the way
                self.ledger.release_worker(worker)
            for lease in leases:
                kind = self.random.choice(["good", "good", "good", "error", "lost", "kept"])
                if kind == "lost":
                    self.ledger.fail(lease.group_id, "lost", infrastructure=True)
                elif kind != "kept":  # a kept lease is put late or never
                    error = "VerifierError" if kind == "error" else None
                    self.ledger.put(payload(lease.group_id, version=lagging, error=error))
                self.maybe_copy(0.08)
            if self.random.random() < 0.3:
                self.ledger.release_worker("w0")
        return manifest


def resume(life: Life, copy: Path, checkpoint: int) -> None:
    """Continue from `copy` and `checkpoint` as a driver does, to the end; check what was trained."""
    with fast_folder() as folder:
        shutil.copytree(life.folder / "run", folder / "run")
        shutil.copy(copy, folder / "run" / COPY_NAME)
        file, records = folder / "local" / "x.sqlite", BatchRecords(folder / "run")
        assert provide(file, folder / "run", rules(max_requeues=99), RUN)[0] == "restored"
        trained = {step: indices for step, indices in life.trained.items() if step < checkpoint}
        with closing(Ledger.open(file, rules(max_requeues=99), run_id=RUN, clock=Clock())) as ledger:
            known = ledger.status().bound_steps
            unknown = records.read(known, checkpoint) if known < checkpoint else []
            ledger.release_all()
            if checkpoint:
                for _ in range(2):  # the answer to the first call was lost
                    ledger.commit(checkpoint, "step", unknown)
            ledger.rollback(checkpoint)
            assert audit(file, [checkpoint]).ok
            for step in range(checkpoint, STEPS + 2):
                while (manifest := ledger.take(step)) is None:
                    for lease in ledger.lease("new", step, 3):
                        ledger.put(payload(lease.group_id, version=step))
                trained[step] = [group.index for group in manifest.groups]
            ledger.commit(STEPS + 2, "last")
        report = audit(file, [STEPS + 2])
        assert report.ok, report.violations
        indices = [index for step in trained.values() for index in step]
        assert len(indices) == len(set(indices)), "a prompt was trained twice"


@pytest.mark.parametrize("seed", range(6))
def test_a_copy_of_any_age_and_any_checkpoint_never_train_a_prompt_twice(seed: int) -> None:
    with fast_folder() as folder:
        life = Life(folder, seed)
        life.live()
        pairs = [(copy, checkpoint) for copy in life.copies for checkpoint in [0, *life.checkpoints]]
        assert len(pairs) >= 12
        for copy, checkpoint in random.Random(seed).sample(pairs, 12):
            resume(life, copy, checkpoint)


@pytest.fixture
def old(folder: Path) -> tuple[Ledger, list[BatchManifest]]:
    """A ledger that knows one step, and the batches of the next two in the ledger that was lost."""
    ledger = new_ledger(folder)
    manifests = []
    for step in range(3):
        for lease in ledger.lease("w", step, 2):
            ledger.put(payload(lease.group_id, version=step))
        manifest = ledger.take(step)
        assert manifest is not None
        manifests.append(manifest)
        if step == 0:
            write_copy(folder / "ledger.sqlite", folder / "old.sqlite", RUN)
    ledger.close()
    return Ledger.open(folder / "old.sqlite", run_id=RUN), manifests[1:]


def test_steps_in_between_must_be_there(old: tuple[Ledger, list[BatchManifest]]) -> None:
    ledger, (_, second) = old
    with closing(ledger), pytest.raises(IntegrityError, match=r"expected 2 groups of step 1, got 2 of step 2"):
        ledger.commit(3, "step_000003", [second])
    with pytest.raises(IntegrityError):  # and nothing was changed
        Ledger.open(ledger._path, run_id=RUN).commit(3, "step_000003")


def test_training_cannot_go_back_to_where_payloads_are_lost(old: tuple[Ledger, list[BatchManifest]]) -> None:
    ledger, unknown = old
    with closing(ledger):
        ledger.commit(3, "step_000003", unknown)
        assert ledger.rollback(3).steps == ()
        with pytest.raises(IntegrityError, match="lost with an earlier ledger"):
            ledger.rollback(1)


def test_a_record_that_contradicts_the_copy_is_refused(old: tuple[Ledger, list[BatchManifest]]) -> None:
    ledger, unknown = old
    with closing(ledger):
        (given_up, other) = ledger.lease("w", 9, 2)
        for _ in range(2):
            ledger.fail(given_up.group_id, "DataError", infrastructure=False)
            leases = ledger.lease("w", 9, 1)
            given_up = leases[0]
        assert other.group_id in [group.group_id for group in unknown[0].groups]
        with pytest.raises(IntegrityError, match="they are of two runs"):
            ledger.commit(3, "step_000003", unknown)
        assert ledger.status().bound_steps == 1
