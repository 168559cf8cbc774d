"""Calibration: a simulated run, written as a real one would be, is predicted again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from r1ray.config.load import load_config
from r1ray.config.schema import Config
from r1ray.config.sources import CONF_DIR
from r1ray.errors import ConfigError
from r1ray.ledger import Ledger
from r1ray.ledger.copies import write_copy
from r1ray.ledger.records import LedgerOpened
from r1ray.ledger.storage import COPY_NAME
from r1ray.planning.calibrate import Measured, calibrate, measure, scenario_of
from r1ray.planning.rates import Efficiency, Rates
from r1ray.planning.scenario import Scenario
from r1ray.planning.simulation import simulate
from r1ray.run.folder import RunFolder
from r1ray.run.identity import RunIdentity
from r1ray.run.ledger import record_home
from r1ray.run.metrics import METRICS
from r1ray.util.machine import this_machine
from tests.unit.ledger_support import Clock, rules, train
from tests.unit.model_folder import SMALL, write_model

TRUE = Efficiency(
    training_share=0.2, decode_share=0.02, compute_share=0.02, engine_step_s=0.005, learner_step_s=0.3, sync_s=0.05
)
LENGTHS = (10, 20, 20, 30, 30, 30, 40, 60)


def config(*overrides: str) -> Config:
    hosts = ("model.path=models/x", "hardware.gpu=cpu", "hardware.per_node=2", "checkpoint.every_steps=1000")
    return load_config(["tiny"], [*hosts, *overrides]).config


def run_of(settings: Config) -> Measured:
    """The figures that a run with the rates `TRUE` would have, on two cores."""
    rates = Rates(config=settings, shape=SMALL, efficiency=TRUE)
    found = simulate(rates, Scenario(steps=120, mean_tokens=30.0, lengths=LENGTHS, prompt_tokens=20.0, cores=2))
    context, rows, elapsed = 20.0 + 30.0 / 2, [], 0.0
    for i in range(8):
        packed = 8000.0 + 200 * (i % 3)
        step = rates.training_s(packed, context)
        elapsed += step + rates.sync_s()
        working = found.tokens_s / (1 - found.rollout_idle)
        rows.append(
            {
                "batch/packed_tokens": packed,
                "learner/step_s": step,
                "sync/seconds": rates.sync_s(),
                "time/elapsed_s": elapsed,
                "rollout/tokens_per_s": working * (1 - found.rollout_idle),
                "rollout/idle_share": found.rollout_idle,
            }
        )
    return Measured(
        config=settings,
        shape=SMALL,
        step_s=found.step_s,
        tokens_s=found.tokens_s,
        staleness=found.staleness,
        learner_idle=found.learner_idle,
        rollout_idle=found.rollout_idle,
        prompt_tokens=20.0,
        lengths=LENGTHS,
        rows=tuple(rows),
    )


def test_the_rates_of_a_run_are_found_again() -> None:
    found = calibrate(run_of(config())).efficiency
    assert found.training_share == pytest.approx(TRUE.training_share, rel=0.02)
    assert found.learner_step_s == pytest.approx(TRUE.learner_step_s, rel=0.05)
    assert found.sync_s == pytest.approx(TRUE.sync_s, rel=0.05)
    assert found.compute_share == pytest.approx(TRUE.compute_share, rel=0.15)


@pytest.mark.parametrize("change", ["rollout.workers=2", "queue.max_staleness=0", "rollout.group_size=16"])
def test_other_settings_are_predicted_from_one_run(change: str) -> None:
    fitted, other = calibrate(run_of(config())), config(change)
    predicted = simulate(Rates(config=other, shape=SMALL, efficiency=fitted.efficiency), scenario_of(fitted, other))
    assert predicted.step_s == pytest.approx(run_of(other).step_s, rel=0.15)


@pytest.fixture
def run_on_a_cluster(tmp_path: Path) -> Iterator[Path]:
    """A run of three trained steps of two groups whose ledger is elsewhere: the run folder has a copy."""
    identity = RunIdentity.new(vocab_hash="v", config_hash="c", model_hash="m")
    text = (CONF_DIR / "tiny.yaml").read_text().replace("path: tiny\n", f"path: {write_model(tmp_path / 'model')}\n", 1)
    with RunFolder.create(tmp_path / "run", text, identity) as made:
        file = tmp_path / "local.sqlite"
        with closing(Ledger.create(file, rules(), run_id=identity.run_id, clock=Clock())) as ledger:
            train(ledger, 3)
            ledger.stamp_copy()
            write_copy(file, made.path / COPY_NAME, identity.run_id)
        opened = LedgerOpened(source="found", host="head", path=str(file), copied_at=None, stored=0, bound_steps=0)
        record_home(made, opened)
        yield made.path


def measured_rows(run: Path, first: int) -> Measured:
    """What is measured of a run with metrics of the steps from `first` on."""
    rows = [
        {
            "step": first + i,
            "learner/step_s": 1.0,
            "time/elapsed_s": 2.0 * i,
            "length/mean": 4.0,
            "rollout/idle_share": 0.5,
        }
        for i in range(8)
    ]
    (run / METRICS).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return measure(run, this_machine())


def test_a_run_whose_ledger_is_on_another_host_is_measured_by_its_copy(run_on_a_cluster: Path) -> None:
    measured = measured_rows(run_on_a_cluster, first=0)
    assert (len(measured.lengths) > 0, measured.step_s, measured.rollout_idle) == (True, 2.0, 0.5)


def test_a_copy_without_the_measured_steps_is_named(run_on_a_cluster: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no groups from step 102 on \(read from the copy of the ledger, made .* ago"
    ):
        measured_rows(run_on_a_cluster, first=100)
    (run_on_a_cluster / COPY_NAME).unlink()
    with pytest.raises(ConfigError, match="with a ledger"):
        measured_rows(run_on_a_cluster, first=100)


def test_a_line_that_does_not_rise_goes_through_the_origin() -> None:
    measured = run_of(config())
    flat = tuple({**row, "learner/step_s": 2.0} for row in measured.rows)
    found = calibrate(replace(measured, rows=flat)).efficiency
    assert found.training_share > 0
