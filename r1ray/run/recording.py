"""The groups of a recorded run, on which another run trains (`r1ray train --replay RUN`).

    index of the replay --> pass, place --> trained step and slot of the recording --> payload under the id of the lease

The group at an index is a function of the recording alone: its trained steps and their order never change. So the
ledger of the replay needs no cursor in the recording, and a prompt index that is leased again gets the same group.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from r1ray.codec import pack_scored, unpack_scored
from r1ray.config.schema import ReplayConfig
from r1ray.errors import InfrastructureError, IntegrityError
from r1ray.ledger.reader import LedgerReader
from r1ray.ledger.records import Lease
from r1ray.run.folder import RunFolder
from r1ray.run.ledger import open_ledger
from r1ray.types import FOREIGN_POLICY, Completion, ScoredGroup, VersionSpan
from r1ray.util.files import read_json

RECORDED = "recorded"
"""Key of a prompt's metadata: group and step of the recorded run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """The part of a recorded run that a replay trains on. Fixed at its start and stored as replay.json."""

    run_id: str  # of the recorded run
    first_step: int  # the first trained step whose payloads were stored
    steps: int  # trained steps from there on
    groups_per_step: int  # of the recorded run

    @property
    def groups(self) -> int:
        """Number of recorded groups."""
        return self.steps * self.groups_per_step

    def place(self, index: int) -> tuple[int, int]:
        """The recorded step and slot of the group at an index of the replay."""
        step, slot = divmod(index % self.groups, self.groups_per_step)
        return self.first_step + step, slot

    def to_json(self) -> dict[str, Any]:
        """Content of replay.json."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What the queue's process needs to read the recording."""

    run_dir: str  # absolute
    recording: Recording
    epochs: int

    @classmethod
    def of(cls, config: ReplayConfig, folder: RunFolder) -> Replay | None:
        """The replay of the run in `folder`; None if it samples its groups."""
        if config.run is None:
            return None
        recording = Recording(**read_json(folder.replay))
        return cls(run_dir=str(Path(config.run).absolute()), recording=recording, epochs=config.epochs)

    @property
    def text(self) -> str:
        """What the run trains on, in one sentence."""
        recording = self.recording
        passes = f", {self.epochs} passes" if self.epochs > 1 else ""
        return (
            f"training on {recording.groups} recorded groups ({recording.steps} steps from step "
            f"{recording.first_step}) of "
            f"the run {recording.run_id} in {self.run_dir}{passes}; held-out problems are not evaluated: use `r1ray "
            "eval`"
        )

    @property
    def indices(self) -> int:
        """Number of prompt indices: each recorded group once in every pass."""
        return self.recording.groups * self.epochs


class RecordedGroups:
    """Reads the groups of a recording. The recorded run may be live; it never waits for this reader."""

    def __init__(self, replay: Replay, ledger: LedgerReader) -> None:
        """Use `open_recorded`."""
        self._replay = replay
        self._ledger = ledger

    def answer(self, lease: Lease) -> bytes:
        """The packed group for a lease. Raises IntegrityError if the recording does not hold it any more."""
        recording = self._replay.recording
        step, slot = recording.place(lease.index)
        payload = self._ledger.payload_at(step, slot)
        if payload is None:
            raise IntegrityError(
                f"{self._replay.run_dir}: the group in slot {slot} of step {step} is gone: the recorded run has pruned "
                "its payloads (resume it with queue.keep_payload_steps=null for another replay), or its ledger is an "
                "older copy"
            )
        group = unpack_scored(payload)
        return pack_scored(readdressed(group, lease, epoch=lease.index // recording.groups, step=step))


def readdressed(group: ScoredGroup, lease: Lease, *, epoch: int, step: int) -> ScoredGroup:
    """A recorded group as the answer to a lease of the replay, with its origin in the metadata of the prompt.

    Tokens, recorded log-probabilities and scores stay. The versions become FOREIGN_POLICY, and the times are left out:
    both are of the recorded run.
    """
    rollout = group.rollout
    origin = {"group_id": rollout.group_id, "step": step}
    meta = {**rollout.prompt.meta, RECORDED: origin}
    prompt = replace(rollout.prompt, index=lease.index, epoch=epoch, meta=meta)
    completions = tuple(_of_another_run(completion) for completion in rollout.completions)
    moved = replace(rollout, group_id=lease.group_id, prompt=prompt, completions=completions, timings={})
    return replace(group, rollout=moved)


def _of_another_run(completion: Completion) -> Completion:
    whole = VersionSpan(version=FOREIGN_POLICY, start=0, end=len(completion.token_ids))
    return replace(completion, version_spans=(whole,))


@contextmanager
def open_recorded(replay: Replay) -> Iterator[RecordedGroups]:
    """Open the recording read-only.

    Raises InfrastructureError if it cannot be reached, IntegrityError for another run.
    """
    folder = RunFolder(Path(replay.run_dir))
    if not folder.run_json.exists():
        raise InfrastructureError(f"the recorded run {replay.run_dir} is not on this machine (replay.run)")
    check_same(replay.recording, folder)
    with open_ledger(folder) as opened:
        if opened is None:
            raise IntegrityError(f"{replay.run_dir}: the recorded run has no ledger any more: restore it from a backup")
        yield RecordedGroups(replay, opened[0])


def check_same(recording: Recording, folder: RunFolder) -> None:
    """Raise IntegrityError unless `folder` holds the recorded run."""
    if (found := folder.identity().run_id) != recording.run_id:
        raise IntegrityError(
            f"{folder.path} is the run {found}, and this run trains on groups of {recording.run_id}: give its folder "
            "(replay.run), or start a new run"
        )
