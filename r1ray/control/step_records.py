"""Records of a trained step: metrics, transcripts and the hacking monitor,
written while the learner trains the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from r1ray.codec import unpack_scored
from r1ray.config.schema import Config
from r1ray.control.fleet import Fleet
from r1ray.control.hacking_monitor import HackingWatch
from r1ray.control.handles import QueueApi
from r1ray.control.outages import QueueClient
from r1ray.control.progress import Progress
from r1ray.control.sync import SyncReport
from r1ray.run.metrics import MetricsWriter, transcript_row
from r1ray.types import BatchManifest


@dataclass(frozen=True, slots=True)
class EndedStep:
    """A step that was trained and published. Producer: the control loop."""

    manifest: BatchManifest
    metrics: dict[str, float]  # of the learner
    waited_s: float  # for the batch
    wall_s: float  # from the request for the batch to the end of the sync
    report: SyncReport | None  # None: there are no rollout workers


class StepRecords:
    """`keep` a step when it ends, `write` it later; at most one step is kept."""

    def __init__(
        self, config: Config, *, writer: MetricsWriter, queue: QueueClient, fleet: Fleet, progress: Progress
    ) -> None:
        self._transcripts_per_step = config.logging.transcripts_per_step
        self._writer = writer
        self._queue = queue
        self._fleet = fleet
        self._progress = progress
        self._watch = HackingWatch(config)
        self._kept: EndedStep | None = None

    def keep(self, ended: EndedStep) -> None:
        """Keep the records of a step until `write`."""
        self._kept = ended

    def write(self) -> None:
        """Write the step that is kept, if any."""
        ended, self._kept = self._kept, None
        if ended is None:
            return
        metrics = ended.metrics | self._progress.step_metrics(self._fleet, ended.report)
        metrics["batch/wait_s"] = ended.waited_s
        metrics["time/step_s"] = ended.wall_s
        metrics["learner/idle_share"] = 1.0 - metrics["learner/step_s"] / ended.wall_s
        metrics["learner/tokens_per_s"] = metrics["batch/tokens"] / ended.wall_s
        row = self._writer.step(ended.manifest.step, metrics)
        for transcript in self._transcripts(ended.manifest):
            self._writer.transcript(transcript)
        self._watch.step(row, self._writer.event)
        self._progress.stepped(row, ended.manifest)

    def _transcripts(self, manifest: BatchManifest) -> list[dict[str, Any]]:
        ids = [g.group_id for g in manifest.groups[: self._transcripts_per_step]]
        groups = [unpack_scored(payload) for payload in self._queue.call(QueueApi.payloads, ids)]
        return [transcript_row(manifest.step, i, group) for i, group in enumerate(groups)]
