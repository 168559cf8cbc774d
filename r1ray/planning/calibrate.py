"""Fit the rates of a plan to a measured run: what its devices and programs reached, and how long completions were.

Each constant comes from figures of its own, medians over the steps after the first quarter:

- engine step: seconds from the lease of a group to its score, over the tokens of its longest completion;
- learner: seconds of a step against its packed tokens, by least squares; the rest of a step, which is neither
  training, waiting nor sync, is added to the constant part;
- sync: seconds beside those that its bytes take;
- what these do not explain of the time of a step slows all parts alike.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from r1ray.config.load import load_config
from r1ray.config.schema import Config
from r1ray.errors import ConfigError
from r1ray.models.folder import ModelShape, read_shape
from r1ray.planning.options import on_hosts
from r1ray.planning.rates import Efficiency, Rates
from r1ray.planning.scenario import Scenario
from r1ray.planning.simulation import simulate
from r1ray.preflight.volumes import sync_seconds
from r1ray.run.folder import RunFolder
from r1ray.run.ledger import open_ledger
from r1ray.run.metrics import Row, read_metrics
from r1ray.types import GroupSummary
from r1ray.util.machine import Machine

LEAST_STEPS = 6
"""Steps that a run must have for a fit."""

ROUNDS = 24
"""Bisections of the engine's share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Figures of a run. Producer: `measure`. Consumers: `calibrate`, `r1ray plan --calibrate`."""

    config: Config
    shape: ModelShape
    step_s: float  # from step to step
    tokens_s: float  # completion tokens trained a second
    staleness: float
    learner_idle: float
    rollout_idle: float
    prompt_tokens: float
    lengths: tuple[int, ...]  # of completions
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Rates and lengths of a measured run. Producer: `calibrate`. Consumer: `forecast`."""

    efficiency: Efficiency
    lengths: tuple[int, ...]
    prompt_tokens: float


def measure(run: Path, machine: Machine) -> Measured:
    """Read the figures of the RL run in `run`, which ran on its declared hosts or else on `machine`.

    Raises ConfigError if it is none or has too few steps.
    """
    folder = RunFolder.open(run)
    config = on_hosts(load_config([str(folder.config.resolve())]).config, machine)
    rows = [row for row in read_metrics(run) if "learner/step_s" in row and "time/elapsed_s" in row]
    if len(rows) < LEAST_STEPS:
        raise ConfigError(
            f"{run}: expected an RL run of at least {LEAST_STEPS} steps to calibrate with, got {len(rows)}"
        )
    steady = rows[len(rows) // 4 :]
    groups = _trained_since(folder, steady[0]["step"])
    passed = steady[-1]["time/elapsed_s"] - steady[0]["time/elapsed_s"]
    lengths = tuple(int(tokens) for group in groups for tokens in group.completion_tokens)
    trained = sum(row["length/mean"] for row in steady[1:]) * config.learner.groups_per_step * config.rollout.group_size
    return Measured(
        config=config,
        shape=read_shape(Path(config.model.path)),
        step_s=passed / (len(steady) - 1),
        tokens_s=trained / passed,
        staleness=statistics.fmean(row.get("staleness/mean", 0.0) for row in steady),
        learner_idle=sum(row.get("batch/wait_s", 0.0) for row in steady[1:]) / passed,
        rollout_idle=statistics.fmean(row["rollout/idle_share"] for row in steady),
        prompt_tokens=statistics.fmean(group.prompt_tokens for group in groups),
        lengths=lengths,
        rows=tuple(steady),
    )


def _trained_since(folder: RunFolder, step: float) -> list[GroupSummary]:
    """The groups of a run from a step on.

    Raises ConfigError if there is none, as in a copy of the ledger that is old.
    """
    with open_ledger(folder) as opened:
        if opened is None:
            raise ConfigError(f"{folder.path}: expected an RL run with a ledger to calibrate with, got one without")
        reader, found = opened
        groups = [g.summary for g in reader.groups() if g.summary is not None and (g.step or 0) >= step]
    if not groups:
        raise ConfigError(
            f"{folder.path}: its ledger has no groups from step {step:g} on ({found.age() or found.path})"
        )
    return groups


def calibrate(measured: Measured) -> Calibration:
    """Fit `Efficiency` to a run; the engine's share such that the simulation of that run generates as fast as it
    did.
    """
    config, rows = measured.config, measured.rows
    slope, constant = _line([(r["batch/packed_tokens"], r["learner/step_s"]) for r in rows])
    other = statistics.median(
        b["time/elapsed_s"] - a["time/elapsed_s"] - b["learner/step_s"] - b.get("batch/wait_s", 0.0) - b["sync/seconds"]
        for a, b in itertools.pairwise(rows)
    )
    probe = Rates(config=config, shape=measured.shape, efficiency=Efficiency(training_share=1.0, learner_step_s=0.0))
    context = measured.prompt_tokens + statistics.fmean(measured.lengths) / 2
    at_peak = probe.training_s(1.0, context)
    efficiency = Efficiency(
        training_share=at_peak / slope,
        prefill_share=at_peak / slope,  # matrix products of many rows, as in training, and not a step for each token
        learner_step_s=max(0.0, constant) + max(0.0, other),
        sync_s=max(0.0, statistics.median(r["sync/seconds"] for r in rows) - sync_seconds(config, measured.shape)),
    )
    working = statistics.fmean(r["rollout/tokens_per_s"] / max(0.05, 1 - r["rollout/idle_share"]) for r in rows)
    fitted = Calibration(
        efficiency=_fit_engine(measured, efficiency, working / config.rollout.workers),
        lengths=measured.lengths,
        prompt_tokens=measured.prompt_tokens,
    )
    rates = Rates(config=config, shape=measured.shape, efficiency=fitted.efficiency)
    unexplained = measured.step_s / simulate(rates, scenario_of(fitted, config)).step_s
    return replace(fitted, efficiency=_slower(fitted.efficiency, unexplained))


def _slower(efficiency: Efficiency, factor: float) -> Efficiency:
    """All parts slower by `factor`: on a busy machine both sides stall by turns, which the simulation does not have."""
    return replace(
        efficiency,
        training_share=efficiency.training_share / factor,
        decode_share=efficiency.decode_share / factor,
        compute_share=efficiency.compute_share / factor,
        prefill_share=efficiency.prefill_share / factor,
        engine_step_s=efficiency.engine_step_s * factor,
        learner_step_s=efficiency.learner_step_s * factor,
        sync_s=efficiency.sync_s * factor,
    )


def scenario_of(calibration: Calibration, config: Config, **changes: object) -> Scenario:
    """The scenario with the lengths of the measured run; on a CPU its processes share the cores."""
    scenario = Scenario(
        mean_tokens=statistics.fmean(calibration.lengths),
        lengths=calibration.lengths,
        prompt_tokens=calibration.prompt_tokens,
        cores=config.hardware.per_node * config.hardware.nodes if config.hardware.gpu == "cpu" else None,
    )
    return replace(scenario, **changes)  # type: ignore[arg-type]


def _fit_engine(measured: Measured, start: Efficiency, busy_tokens_s: float) -> Efficiency:
    """The shares of an engine with which a working engine of the simulated run has the measured tokens a second.

    A simulated engine is faster with a larger share, so that the share is found by bisection.
    """
    low, high = 1e-4, 10.0
    for _ in range(ROUNDS):
        middle = (low * high) ** 0.5
        trial = replace(start, compute_share=middle, decode_share=middle)
        rates = Rates(config=measured.config, shape=measured.shape, efficiency=trial)
        calibration = Calibration(efficiency=trial, lengths=measured.lengths, prompt_tokens=measured.prompt_tokens)
        outcome = simulate(rates, scenario_of(calibration, measured.config))
        working = outcome.tokens_s / measured.config.rollout.workers / max(0.05, 1 - outcome.rollout_idle)
        low, high = (middle, high) if working < busy_tokens_s else (low, middle)
    return trial


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Slope and constant of the line through `points` by least squares; through the origin if it would not rise."""
    mean_x, mean_y = (statistics.fmean(values) for values in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
    if slope <= 0 or slope * mean_x > mean_y:
        return mean_y / mean_x, 0.0
    return slope, mean_y - slope * mean_x
