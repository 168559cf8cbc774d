"""Kill processes of a run repeatedly in a seeded order, and measure recovery."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos.machines import Machines
from benchmarks.chaos.moments import MOMENTS, Cluster, Kill
from benchmarks.chaos.observe import ObservedRun

RECOVERY_S = 240.0
"""Timeout of each recovery."""

PAUSE_S = 3.0
"""Longest pause between a recovery and the next kill."""


class ChaosFailed(Exception):
    """The run did not recover, ended too early, or ended with an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Recovery after a kill, in seconds since the kill."""

    kill: Kill
    tokens_s: float  # until the first group leased after the kill is scored
    step_s: float  # until the first step finished after the kill is published


@dataclass(slots=True)
class Campaign:
    """One run with kills. `overlay` and `settings` are arguments of `r1ray train`; `run` is its run folder."""

    run: Path
    overlay: Path
    settings: Sequence[str]
    seed: int
    logs: Path
    every_s: float | None = None  # from one kill to the next, but after its recovery; None: soon after each recovery
    recoveries: list[Recovery] = field(default_factory=list)
    missed: Counter[str] = field(default_factory=Counter)

    def execute(self, kinds: Sequence[str], *, end_after: int | None = None) -> dict[str, Any]:
        """Start the run, kill by `kinds` in order, wait until the run ends, and return the figures.

        `end_after`: kill the driver once more and resume with this many further steps.
        Raises ChaosFailed if the run does not recover or ends with an error.
        """
        machines = Machines(self.logs)
        cluster = Cluster(machines, ObservedRun(self.run), random.Random(self.seed))
        began = time.time()
        try:
            machines.start_head()
            machines.start_node()
            machines.start_driver("--fresh", self.overlay, f"run.dir={self.run}", *self.settings)
            self._await_recovery(cluster, began, "the start")
            trained = time.time()
            for number, kind in enumerate(kinds, start=1):
                if self.every_s is not None and not self._reaches(cluster, trained + number * self.every_s):
                    break
                self._kill_one(cluster, kind)
            if end_after is not None:
                self._kill_one(cluster, "driver", end_after=end_after)
            self._await_end(cluster)
        finally:
            machines.stop()
        ended = time.time()
        return self._figures(cluster.seen, ended - began, ended - trained)

    def _reaches(self, cluster: Cluster, at: float) -> bool:
        """Wait until then; whether the run has not ended before."""
        while time.time() < at:
            if cluster.machines.driver_exit() == 0:
                return False
            self._check_alive(cluster)
            time.sleep(0.2)
        return True

    def _kill_one(self, cluster: Cluster, kind: str, *, end_after: int | None = None) -> None:
        """Retry until the moment is met. An attempt that misses its moment kills nothing."""
        while (kill := MOMENTS[kind](cluster)) is None:
            self.missed[kind] += 1
            if self.missed[kind] > 20:
                raise ChaosFailed(f"{kind}: the moment to kill did not occur in 20 attempts")
            self._check_alive(cluster)
            time.sleep(0.2)
        _say(f"{len(self.recoveries) + 1:3d}  {kill.kind:34s} pid {kill.pid:<8d} {kill.evidence}")
        self._act_as_operator(
            cluster, kind, [] if end_after is None else [f"run.steps={cluster.seen.steps_with_batch() + end_after}"]
        )
        tokens, step = self._await_recovery(cluster, kill.at, kill.kind)
        self.recoveries.append(Recovery(kill=kill, tokens_s=tokens, step_s=step))
        _say(f"     tokens after {tokens:.1f} s, a step after {step:.1f} s")
        if self.every_s is None:
            time.sleep(cluster.rng.uniform(0.0, PAUSE_S))

    def _act_as_operator(self, cluster: Cluster, kind: str, changes: Sequence[str]) -> None:
        """Restart machines and the driver, which r1ray cannot do itself. `changes`: settings of the resume."""
        if kind == "head":
            cluster.machines.start_head()
        if kind in ("worker_node", "head"):
            cluster.machines.restart_node()
        if kind in ("driver", "head"):
            cluster.machines.start_driver("--resume", self.run, *changes)

    def _await_recovery(self, cluster: Cluster, since: float, after: str) -> tuple[float, float]:
        """Wait for new tokens and a new step. Returns both times in seconds after `since`."""
        until = time.monotonic() + RECOVERY_S
        while time.monotonic() < until:
            tokens, step = cluster.seen.first_tokens_after(since), cluster.seen.first_step_after(since)
            if tokens is not None and step is not None:
                return tokens - since, step - since
            self._check_alive(cluster)
            time.sleep(0.1)
        raise ChaosFailed(
            f"the run did not recover within {RECOVERY_S:g} s after {after}: "
            f"{json.dumps(cluster.seen.status())}; logs: {self.logs}"
        )

    def _check_alive(self, cluster: Cluster) -> None:
        code = cluster.machines.driver_exit()
        if code is not None:
            raise ChaosFailed(
                f"the driver exited with {code} after {len(self.recoveries)} recoveries (0: the run finished; increase "
                f"run.steps); see {self.logs}/driver.log"
            )

    def _await_end(self, cluster: Cluster) -> None:
        quiet = (-1, time.monotonic())
        while (code := cluster.machines.driver_exit()) is None:
            if cluster.seen.groups() != quiet[0]:
                quiet = (cluster.seen.groups(), time.monotonic())
            if time.monotonic() - quiet[1] > RECOVERY_S:
                raise ChaosFailed(f"no group was leased for {RECOVERY_S:g} s: {json.dumps(cluster.seen.status())}")
            time.sleep(0.2)
        if code != 0:
            raise ChaosFailed(f"the driver exited with {code}; see {self.logs}/driver.log")

    def _figures(self, seen: ObservedRun, seconds: float, training_s: float) -> dict[str, Any]:
        redone, groups = seen.dropped_groups(), seen.groups()
        return {
            "seed": self.seed,
            "kills": len(self.recoveries),
            "seconds": round(seconds, 1),
            "seconds_from_the_first_step": round(training_s, 1),
            "steps": seen.steps_with_batch(),
            "steps_trained_again": seen.repeated_steps(),
            "groups": groups,
            "groups_redone": redone,
            # An upper bound: each dropped group counts in full, even if little of it was sampled.
            "tokens_wasted_percent_at_most": round(100.0 * sum(redone.values()) / max(1, groups), 2),
            "kinds": _by_kind(self.recoveries),
            "evaluations": seen.evaluations(),
            "reward": seen.reward(),
            "verify": verify(self.run),
        }


def _by_kind(recoveries: Sequence[Recovery]) -> dict[str, dict[str, float]]:
    kinds: dict[str, list[Recovery]] = {}
    for recovery in recoveries:
        kinds.setdefault(recovery.kill.kind, []).append(recovery)
    return {
        kind: {
            "kills": len(found),
            "tokens_s_p50": round(statistics.median(r.tokens_s for r in found), 2),
            "tokens_s_max": round(max(r.tokens_s for r in found), 2),
            "step_s_p50": round(statistics.median(r.step_s for r in found), 2),
            "step_s_max": round(max(r.step_s for r in found), 2),
        }
        for kind, found in kinds.items()
    }


def verify(run: Path) -> dict[str, Any]:
    """Return the exit code and violations of `r1ray verify`."""
    command = [sys.executable, "-m", "r1ray", "verify", str(run), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120.0, check=False)
    report: dict[str, Any] = json.loads(done.stdout)
    return {"exit_code": done.returncode, "violations": report["violations"]}


def schedule(kills: int, seed: int) -> list[str]:
    """Return `kills` kinds in a seeded order, each about equally often."""
    rng = random.Random(seed)
    order: list[str] = []
    while len(order) < kills:
        order += rng.sample(list(MOMENTS), len(MOMENTS))
    return order[:kills]


def _say(line: str) -> None:
    print(line, flush=True)
