"""Handle a stalled run: write a diagnosis into the run folder, then apply recovery.stall_policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from r1ray.config.schema import RecoveryConfig
from r1ray.control.fleet import Fleet
from r1ray.control.handles import LearnerApi, Place
from r1ray.control.learners import LearnerGroup
from r1ray.control.managed_actors import RayManagedActors
from r1ray.control.progress import Progress
from r1ray.control.watchdog import Stage, Watchdog
from r1ray.errors import RetryBudgetExhausted
from r1ray.run.folder import RunFolder
from r1ray.run.metrics import MetricsWriter
from r1ray.util.files import write_atomic


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalls:
    """Checks for a stall at each tick, and handles it."""

    config: RecoveryConfig
    watchdog: Watchdog
    stacks: Callable[[Mapping[str, Place]], Mapping[str, str]]  # of each process by name; may take seconds
    folder: RunFolder
    writer: MetricsWriter

    def tick(
        self, progress: Progress, fleet: Fleet, managed: RayManagedActors, learners: LearnerGroup[LearnerApi]
    ) -> None:
        """Check once. Raises RetryBudgetExhausted if the run is stalled and recovery.stall_policy is "abort"."""
        workers = {n: m.place for n, m in fleet.members.items() if m.place is not None}
        stage = progress.stage
        starting = stage in (Stage.BATCH, Stage.EVALUATION) and not workers
        if starting or progress.pausing:
            stage = Stage.DEADLINE  # deadlines.actor_start_s, or recovery.outage_timeout_s
        stalled_s = self.watchdog.look(progress.marks(fleet), stage)
        progress.stalled_s = self.watchdog.still_s
        if stalled_s is None:
            return
        places = dict(learners.places) if stage is Stage.STEP else dict(workers)
        if stage is Stage.SYNC:
            places |= learners.places
        elif stage in (Stage.BATCH, Stage.EVALUATION):
            places |= managed.places
        lines = [f"Nothing has moved for {stalled_s:.0f} s: no token, no score, no step.", *progress.explain(fleet)]
        lines += [f"\nStack of {name}:\n{stack}" for name, stack in self.stacks(places).items()]
        self.watchdog.reported()
        where = self._keep(f"stall-{progress.step:06d}.txt", "\n".join(lines))
        policy = self.config.stall_policy
        self.writer.event("stalled", seconds=stalled_s, stage=stage.value, policy=policy, **where)
        if policy == "abort":
            raise RetryBudgetExhausted(
                f"nothing has moved for {stalled_s:.0f} s (recovery.stall_timeout_s="
                f"{self.config.stall_timeout_s:g}, recovery.stall_policy=abort): "
                f"see {where.get('diagnosis') or where['unwritten']} in {self.folder.path}"
            )
        if policy == "restart" and stage in (Stage.STEP, Stage.SYNC):
            learners.kill()  # calls in progress fail
        elif policy == "restart":
            reason = f"nothing moved for {stalled_s:.0f} s (recovery.stall_policy=restart)"
            for name in workers:
                fleet.lost(name, reason)
            managed.restart(reason)

    def _keep(self, name: str, text: str) -> dict[str, str]:
        """Write the diagnosis into the run folder. If that fails, the event has its text and the error."""
        try:
            write_atomic(self.folder.path / name, text.encode() + b"\n")
        except OSError as e:
            return {"unwritten": f"{name}: {e}", "text": text}
        return {"diagnosis": name}
