"""A run that is killed again and again, in a seeded order, and what that cost."""

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
from benchmarks.chaos.moments import MOMENTS, Struck, World
from benchmarks.chaos.observe import Observed

RECOVERY_S = 240.0
"""No death may stop the tokens for longer."""

PAUSE_S = 3.0
"""Longest pause between a recovery and the next kill."""


class ChaosFailed(Exception):
    """The run did not come back, ended too early, or ended with an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What followed a kill, in seconds since it."""

    struck: Struck
    tokens_s: float  # the first group that was leased after the kill is scored
    step_s: float  # the first step that ended after the kill is published


@dataclass(slots=True)
class Campaign:
    """`overlay` and `settings` are arguments of `r1ray train`; `run` is its run folder."""

    run: Path
    overlay: Path
    settings: Sequence[str]
    seed: int
    logs: Path
    recoveries: list[Recovery] = field(default_factory=list)
    missed: Counter[str] = field(default_factory=Counter)

    def execute(self, kinds: Sequence[str], *, end_after: int | None = None) -> dict[str, Any]:
        """Start the run, kill by `kinds` in their order, wait for its end; returns the figures.

        `end_after`: one last kill of the driver, whose resume sets run.steps to so many more than are bound by then.
        Raises ChaosFailed.
        """
        machines = Machines(self.logs)
        world = World(machines, Observed(self.run), random.Random(self.seed))
        began = time.time()
        try:
            machines.start_head()
            machines.start_node()
            machines.start_driver("--fresh", self.overlay, f"run.dir={self.run}", *self.settings)
            self._await_recovery(world, began, "nobody: the start")
            for kind in kinds:
                self._kill(world, kind)
            if end_after is not None:
                self._kill(world, "driver", end_after=end_after)
            self._await_end(world)
        finally:
            machines.stop()
        return self._figures(world.seen, time.time() - began)

    def _kill(self, world: World, kind: str, *, end_after: int | None = None) -> None:
        """Try until the moment is met; a kill that missed its moment never happened."""
        while (struck := MOMENTS[kind](world)) is None:
            self.missed[kind] += 1
            if self.missed[kind] > 20:
                raise ChaosFailed(f"the moment for {kind} does not come")
            self._check_alive(world)
            time.sleep(0.2)
        _say(f"{len(self.recoveries) + 1:3d}  {struck.kind:34s} pid {struck.pid:<8d} {struck.evidence}")
        self._act_as_operator(
            world, kind, [] if end_after is None else [f"run.steps={world.seen.steps_bound() + end_after}"]
        )
        tokens, step = self._await_recovery(world, struck.at, struck.kind)
        self.recoveries.append(Recovery(struck=struck, tokens_s=tokens, step_s=step))
        _say(f"     tokens after {tokens:.1f} s, a step after {step:.1f} s")
        time.sleep(world.rng.uniform(0.0, PAUSE_S))

    def _act_as_operator(self, world: World, kind: str, changes: Sequence[str]) -> None:
        """Start again what r1ray cannot: machines and the driver. `changes` are settings of the resume."""
        if kind == "head":
            world.machines.start_head()
        if kind in ("worker_node", "head"):
            world.machines.restart_node()
        if kind in ("driver", "head"):
            world.machines.start_driver("--resume", self.run, *changes)

    def _await_recovery(self, world: World, since: float, after: str) -> tuple[float, float]:
        """Wait until tokens flow and steps end again; returns when, in seconds after `since`."""
        until = time.monotonic() + RECOVERY_S
        while time.monotonic() < until:
            tokens, step = world.seen.tokens_again(since), world.seen.step_again(since)
            if tokens is not None and step is not None:
                return tokens - since, step - since
            self._check_alive(world)
            time.sleep(0.1)
        raise ChaosFailed(
            f"{RECOVERY_S:g} s after the death of {after} the run has not come back: "
            f"{json.dumps(world.seen.status())}; logs are in {self.logs}"
        )

    def _check_alive(self, world: World) -> None:
        code = world.machines.driver_exit()
        if code is not None:
            raise ChaosFailed(
                f"the driver ended with {code} after {len(self.recoveries)} recoveries (0: the run was at its end, raise "
                f"run.steps); see {self.logs}/driver.log"
            )

    def _await_end(self, world: World) -> None:
        quiet = (-1, time.monotonic())
        while (code := world.machines.driver_exit()) is None:
            if world.seen.groups() != quiet[0]:
                quiet = (world.seen.groups(), time.monotonic())
            if time.monotonic() - quiet[1] > RECOVERY_S:
                raise ChaosFailed(f"nothing was leased for {RECOVERY_S:g} s: {json.dumps(world.seen.status())}")
            time.sleep(0.2)
        if code != 0:
            raise ChaosFailed(f"the driver ended with {code}; see {self.logs}/driver.log")

    def _figures(self, seen: Observed, seconds: float) -> dict[str, Any]:
        redone, groups = seen.redone(), seen.groups()
        return {
            "seed": self.seed,
            "kills": len(self.recoveries),
            "seconds": round(seconds, 1),
            "steps": seen.steps_bound(),
            "steps_trained_again": seen.steps_again(),
            "groups": groups,
            "groups_redone": redone,
            # Each group that was thrown away counts in full, however little of it was sampled.
            "tokens_wasted_percent_at_most": round(100.0 * sum(redone.values()) / max(1, groups), 2),
            "kinds": _by_kind(self.recoveries),
            "evaluations": seen.evaluations(),
            "reward": seen.reward(),
            "verify": verify(self.run),
        }


def _by_kind(recoveries: Sequence[Recovery]) -> dict[str, dict[str, float]]:
    kinds: dict[str, list[Recovery]] = {}
    for recovery in recoveries:
        kinds.setdefault(recovery.struck.kind, []).append(recovery)
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
    """What `r1ray verify` says of the run folder."""
    command = [sys.executable, "-m", "r1ray", "verify", str(run), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120.0, check=False)
    report: dict[str, Any] = json.loads(done.stdout)
    return {"exit_code": done.returncode, "violations": report["violations"]}


def schedule(kills: int, seed: int) -> list[str]:
    """`kills` kinds in a seeded order; each kind comes about equally often."""
    rng = random.Random(seed)
    order: list[str] = []
    while len(order) < kills:
        order += rng.sample(list(MOMENTS), len(MOMENTS))
    return order[:kills]


def _say(line: str) -> None:
    print(line, flush=True)
