"""Prompts that take longer than the staleness bound allows: the real ledger in a simulated run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.ledger_simulation import POLICIES, SCENARIOS, Policy, Simulation, table_row

DOCS = Path(__file__).parents[3] / "docs" / "design.md"
REQUEUE, DROP, AFTER_2, AFTER_1, AT_ONCE, CONTINUE = POLICIES
FIXED, TAIL, SLOW_WORKER = SCENARIOS

Runs = dict[tuple[str, str], Simulation]


@pytest.fixture(scope="module")
def runs() -> Runs:
    return {(s.name, p.name): Simulation(s, p).run() for s in SCENARIOS for p in POLICIES}


def test_the_bound_holds_whatever_the_policy(runs: Runs) -> None:
    assert {run.oldest for run in runs.values()} == {1}


def test_requeueing_without_end_trains_no_slow_prompt_and_fills_half_the_engine(runs: Runs) -> None:
    today = runs[FIXED.name, REQUEUE.name]
    assert today.slow_trained == 0
    assert today.untrained_engine > 0.4
    assert max(today.leases.values()) > 15


@pytest.mark.parametrize("policy", [AFTER_2, AFTER_1, AT_ONCE], ids=lambda p: p.name)
def test_a_reservation_trains_slow_prompts_at_their_share(runs: Runs, policy: Policy) -> None:
    run = runs[FIXED.name, policy.name]
    assert run.slow_trained == 1
    assert run.length_ratio == pytest.approx(1, abs=0.01)
    assert max(run.leases.values()) == run.settings.reserve_after_stale + 1


def test_the_default_costs_less_time_than_requeueing_did(runs: Runs) -> None:
    assert AFTER_1.changes == {"reserve_after_stale": runs[TAIL.name, DROP.name].settings.reserve_after_stale}
    assert runs[FIXED.name, AFTER_1.name].elapsed < runs[FIXED.name, REQUEUE.name].elapsed
    assert runs[TAIL.name, AFTER_1.name].elapsed < 1.01 * runs[TAIL.name, REQUEUE.name].elapsed


def test_a_slow_worker_holds_the_run_up_only_if_every_group_is_waited_for(runs: Runs) -> None:
    requeued = runs[SLOW_WORKER.name, REQUEUE.name].elapsed
    assert runs[SLOW_WORKER.name, AFTER_1.name].elapsed < 1.1 * requeued
    assert runs[SLOW_WORKER.name, AT_ONCE.name].elapsed > 2 * requeued


def test_a_run_that_waits_for_every_group_has_no_bias_of_length(runs: Runs) -> None:
    assert runs[TAIL.name, AT_ONCE.name].length_ratio == pytest.approx(1, abs=0.005)
    assert runs[TAIL.name, DROP.name].length_ratio < 0.95


def test_the_documentation_shows_the_figures_of_this_simulation(runs: Runs) -> None:
    page = DOCS.read_text(encoding="utf-8")
    for run in runs.values():
        assert table_row(run) in page
