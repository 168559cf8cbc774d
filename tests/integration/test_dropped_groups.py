"""Runs whose groups are all dropped say why on the terminal and in `status`, and end by name, on real processes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.chaos.campaign import verify
from r1ray.errors import NoTrainableGroups
from r1ray.run.status import explain, read_run_status
from tests.integration.driver import start
from tests.integration.models import random_model, write_model

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(600)]
WITHIN_S = 20.0
BATCH = 4  # learner.groups_per_step of loop.yaml


@pytest.mark.parametrize(
    ("reward", "settings", "reason"),
    [
        ("broken", [], "VerifierCrash: tests.integration.own_reward:broken: KeyError:"),
        ("constant", ["algorithm.dynamic_sampling=true"], "all rewards of a group are equal"),
    ],
)
def test_a_run_without_a_group_to_train_on_says_why_and_ends(
    tmp_path: Path, reward: str, settings: list[str], reason: str
) -> None:
    model, run, overlay = tmp_path / "model", tmp_path / "run", tmp_path / "rewards.yaml"
    write_model(random_model(seed=1), model)
    overlay.write_text(f'rewards: [{{name: "tests.integration.own_reward:{reward}", weight: 1.0}}]\n')
    driver = start(run, model, str(overlay), "recovery.max_dropped_batches=150", *settings)
    driver.wait_for("the first dropped groups", lambda: sum(driver.seen.dropped_groups().values()) >= BATCH)
    dropped = time.monotonic()
    driver.wait_for("a line on the terminal", lambda: reason in driver.said())
    assert time.monotonic() - dropped < WITHIN_S
    assert "(100%) were dropped" in driver.said()

    driver.wait_for("status.json", lambda: reason in driver.seen.status().get("message", ""))
    assert any(reason in line for line in explain(read_run_status(run)))
    (event,) = driver.seen.events("groups_dropped")
    assert event["share"] == 1.0
    assert reason in event["message"]

    text = driver.end(NoTrainableGroups.exit_code)
    assert "NoTrainableGroups" in text
    assert "recovery.max_dropped_batches" in text
    assert "of prompt 'sums" not in text  # the sample's own text is not part of the reason
    assert verify(run) == {"exit_code": 0, "violations": []}
