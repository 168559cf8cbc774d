"""One run in which every kind of process dies once, by SIGKILL, at its worst moment; nothing is lost,
nothing is done twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos.campaign import Campaign, schedule
from benchmarks.chaos.moments import MOMENTS
from r1ray.run.metrics import read_evaluations, read_events, read_metrics
from tests.integration.models import random_model, write_model

# Alone: a whole cluster starts again within its deadline, and beside another test each recovery takes twice as long.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(1500)]
HERE = Path(__file__).parent
SEED = 7
STEPS_LEFT = 3
"""Steps between the last death, the driver's, and the end."""

LONGEST_S = 180.0
"""A whole cluster that starts again on a busy machine of two cores."""


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> tuple[Campaign, dict[str, Any]]:
    base = tmp_path_factory.mktemp("chaos")
    write_model(random_model(seed=1), base / "model")
    campaign = Campaign(
        run=base / "run",
        overlay=HERE / "loop.yaml",
        settings=[
            f"model.path={base / 'model'}",
            "run.steps=1000000",
            "rollout.workers=2",
            "learner.ranks=2",
            "sync.encoding=delta",
        ],
        seed=SEED,
        logs=base / "logs",
    )
    order = [kind for kind in schedule(len(MOMENTS), SEED) if kind != "driver"]
    return campaign, campaign.execute(order, end_after=STEPS_LEFT)


def test_every_kind_of_process_died_and_the_run_came_back(campaign: tuple[Campaign, dict[str, Any]]) -> None:
    done, figures = campaign
    assert figures["kills"] == len(MOMENTS)
    assert len(figures["kinds"]) == len(MOMENTS)
    assert max(r.tokens_s for r in done.recoveries) < LONGEST_S


def test_it_reached_its_target_without_a_gap(campaign: tuple[Campaign, dict[str, Any]]) -> None:
    run = campaign[0].run
    steps = [row["step"] for row in read_metrics(run)]
    assert steps == list(range(len(steps)))
    assert max(e["step"] for e in read_evaluations(run)) == len(steps)
    assert (run / "final" / "config.json").exists()


def test_no_group_was_lost_or_trained_twice(campaign: tuple[Campaign, dict[str, Any]]) -> None:
    assert campaign[1]["verify"] == {"exit_code": 0, "violations": []}


def test_each_death_was_told_by_name(campaign: tuple[Campaign, dict[str, Any]]) -> None:
    events = read_events(campaign[0].run)
    lost = [e["message"] for e in events if e["kind"] == "learner_lost"]
    for doing in ("train step", "save checkpoint", "published policy"):
        assert any(doing in message for message in lost), lost
    # Counted by event, not by name: every start of the driver numbers its workers anew.
    assert sum(e["kind"] == "worker_lost" for e in events) >= 3
    assert sum(e["kind"] == "started" for e in events) == 3  # the start, after the head, after the driver
