"""Report samples that could not be scored while a sampling job runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from r1ray.types import Score

MIN_SAMPLES = 32
FAILED_SHARE = 0.5


class FailedScores:
    """Calls `on_event("scores_failed", ...)` once, as soon as at least half of at least MIN_SAMPLES scores failed."""

    def __init__(self, on_event: Callable[..., None]) -> None:
        self._event = on_event
        self._samples = 0
        self._kinds: Counter[str] = Counter()
        self._reported = False

    def add(self, scores: Sequence[Score]) -> None:
        """Count the scores of a group."""
        self._samples += len(scores)
        self._kinds.update(score.error_kind or score.error for score in scores if score.error)
        failed = self._kinds.total()
        if self._reported or self._samples < MIN_SAMPLES or failed < FAILED_SHARE * self._samples:
            return
        self._reported = True
        (reason, _), *_ = self._kinds.most_common(1)
        share = f"{failed} of {self._samples} samples ({failed / self._samples:.0%})"
        message = f"{share} could not be scored, most often: {reason}"
        self._event("scores_failed", message=message, share=failed / self._samples, reasons=dict(self._kinds))
