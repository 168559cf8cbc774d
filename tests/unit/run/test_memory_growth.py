"""Slope of the memory of a run's processes."""

from __future__ import annotations

import pytest

from benchmarks.memory import grows, table
from r1ray.run.memory_growth import memory_growth


def test_the_warm_up_does_not_count_and_the_slope_does() -> None:
    rows = [
        {
            "step": step,
            "memory/driver_bytes": 1e8 + (5e7 * min(step, 10)),
            "memory/learner_bytes": 1e9 + 2e6 * step,
            "train/loss": 0.0,
        }
        for step in range(100)
    ]
    driver, learner = memory_growth(rows)
    assert (driver.process, driver.bytes_per_step) == ("driver", pytest.approx(0))
    assert learner.bytes_per_step == pytest.approx(2e6)
    assert (learner.first_bytes, learner.last_bytes) == (
        pytest.approx(1e9 + 2e6 * 23.5),
        pytest.approx(1e9 + 2e6 * 95.5),
    )
    assert [grows(driver), grows(learner)] == [False, True]
    assert [line.endswith("grows") for line in table([driver, learner], judged=True)] == [False, False, True]
    assert not any(line.endswith("grows") for line in table([driver, learner], judged=False))


def test_a_short_run_shows_no_trend() -> None:
    assert memory_growth([{"step": step, "memory/driver_bytes": 1.0} for step in range(8)]) == []
