"""Source of groups for a replay: answers leases with the groups of a recorded run, inside the queue's process."""

from __future__ import annotations

from r1ray.errors import NoTrainableGroups
from r1ray.ledger.ledger import Ledger
from r1ray.run.recording import Replay, open_recorded

RECORDING = "recording"
"""The worker that leases: in the place of rollout and reward workers."""

AT_ONCE = 16
"""Groups that are in memory together, and stored in one transaction."""


class ReplayedGroups:
    """Fills a batch when it is taken, so no group waits in the ledger of the replay.

    Between the lease and the storing of a group nothing is kept outside the ledger: after a kill, its prompt index is
    delivered again and gets the same group.
    """

    def __init__(self, replay: Replay) -> None:
        self._replay = replay

    def fill(self, ledger: Ledger, step: int) -> bool:
        """Store a few groups of the batch of `step`. Returns False, and does nothing, once it is ready.

        Raises NoTrainableGroups if the recording has no more, and what `open_recorded` and `RecordedGroups` raise.
        """
        status = ledger.status()
        missing = ledger.settings.groups_per_step - status.ready
        if missing <= 0:
            return False
        wanted = min(missing, AT_ONCE, status.queued + self._replay.indices - status.cursor)
        leases = ledger.redeliver_unacknowledged(RECORDING, (), AT_ONCE) or ledger.lease(RECORDING, step, wanted)
        if not leases:
            raise NoTrainableGroups(self._exhausted(step))
        with open_recorded(self._replay) as recorded:
            ledger.put_many([recorded.answer(lease) for lease in leases])
        return True

    def _exhausted(self, step: int) -> str:
        replay, recording = self._replay, self._replay.recording
        return (
            f"step {step} has no complete batch: all {recording.groups} groups of the recorded run {replay.run_dir} "
            "were "
            f"used {replay.epochs} times (replay.epochs). Lower run.steps to {step}, or raise replay.epochs; then "
            "continue "
            "with --resume"
        )
