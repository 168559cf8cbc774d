"""Report a run whose groups are dropped instead of trained on: failed rewards or prompts, or equal rewards.

The ledger leases another prompt for each dropped group, so without this monitor such a run generates until
`deadlines.batch_s` and says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from r1ray.errors import NoTrainableGroups
from r1ray.ledger.intake import NO_SIGNAL
from r1ray.ledger.records import LedgerStatus

FAILED_SHARE = 0.5
"""Report failures from this share of the judged groups on: half the work is lost to an error."""
REJECTED_SHARE = 0.9
"""Report rejected groups of any reason from this share on. Dynamic sampling drops well over half in a healthy run."""
SHOWN_REASONS = 2


class DropMonitor:
    """Follows the ledger's counts of accepted and rejected groups, batch by batch.

    A group is rejected if it is dropped for its own content (`LedgerStatus.rejected_by_reason`). An episode begins once
    at least a batch of groups was rejected and their share is high: `on_event("groups_dropped", ...)` is called once.
    It ends with the first batch for which this no longer holds.

    Example with groups_per_step=4: 4 rejected, 0 accepted -> event; 4 accepted complete the batch -> still the episode;
    the next batch has 1 rejected, 4 accepted -> the episode ends.
    """

    def __init__(self, *, groups_per_step: int, max_dropped_batches: int, on_event: Callable[..., None]) -> None:
        self._batch = groups_per_step
        self._max_batches = max_dropped_batches
        self._event = on_event
        self._start: LedgerStatus | None = None  # at the last complete batch, or at the first look
        self._accepted_at: LedgerStatus | None = None  # at the last accepted group
        self._text = ""
        self._used = 0.0

    def budgets(self) -> dict[str, float]:
        """Used share of the groups in a row that may be rejected."""
        return {"recovery.max_dropped_batches": self._used}

    def look(self, status: LedgerStatus) -> str:
        """The present episode in one sentence, "" if there is none.

        Raises NoTrainableGroups once `recovery.max_dropped_batches` times `learner.groups_per_step` groups in a row
        were rejected.
        """
        if self._start is None or self._accepted_at is None:
            self._start = self._accepted_at = status
        window = _Window.between(self._start, status)
        if status.bound_steps > self._start.bound_steps:
            self._text = self._text if self._is_high(window) else ""
            self._start = status
        elif self._is_high(window):
            text, self._text = self._text, window.described(f" for step {status.bound_steps}")
            if not text:
                step, share = status.bound_steps, window.share
                self._event("groups_dropped", message=self._text, step=step, share=share, reasons=window.reasons)
        if status.accepted > self._accepted_at.accepted:
            self._accepted_at = status
        self._end_if_hopeless(_Window.between(self._accepted_at, status))
        return self._text

    def _is_high(self, window: _Window) -> bool:
        if window.rejected < self._batch:
            return False
        failed = window.rejected - window.reasons.get(NO_SIGNAL, 0)
        return window.share >= REJECTED_SHARE or failed / window.judged >= FAILED_SHARE

    def _end_if_hopeless(self, window: _Window) -> None:
        self._used = window.rejected / (self._max_batches * self._batch)
        if self._used < 1:
            return
        raise NoTrainableGroups(
            f"{window.described(' in a row')}. After {self._max_batches} batches without one group to train on "
            f"(recovery.max_dropped_batches) the run ends. {_remedy(window.reasons)}; then continue with --resume"
        )


@dataclass(frozen=True, slots=True)
class _Window:
    """Groups judged between two looks."""

    accepted: int
    reasons: dict[str, int]  # reason -> rejected groups, the most frequent first

    @classmethod
    def between(cls, start: LedgerStatus, end: LedgerStatus) -> _Window:
        before = start.rejected_by_reason
        counts = {reason: n - before.get(reason, 0) for reason, n in end.rejected_by_reason.items()}
        new = sorted(((reason, n) for reason, n in counts.items() if n > 0), key=lambda item: -item[1])
        return cls(end.accepted - start.accepted, dict(new))

    @property
    def rejected(self) -> int:
        return sum(self.reasons.values())

    @property
    def judged(self) -> int:
        return self.rejected + self.accepted

    @property
    def share(self) -> float:
        return self.rejected / max(1, self.judged)

    def described(self, which: str) -> str:
        """One sentence; `which` follows the number of groups."""
        shown = [f"{_readable(reason)} ({n})" for reason, n in list(self.reasons.items())[:SHOWN_REASONS]]
        if len(self.reasons) > SHOWN_REASONS:
            shown.append(f"{len(self.reasons) - SHOWN_REASONS} more reasons")
        return f"{self.rejected} of {self.judged} groups{which} ({self.share:.0%}) were dropped: {'; '.join(shown)}"


def _readable(reason: str) -> str:
    if reason == NO_SIGNAL:
        return "all rewards of a group are equal and algorithm.dynamic_sampling is on"
    return reason


def _remedy(reasons: Mapping[str, int]) -> str:
    if next(iter(reasons)) == NO_SIGNAL:
        return "Use easier prompts or rewards that differ, or set algorithm.dynamic_sampling=false"
    return "Correct `rewards` or `data.train`"
