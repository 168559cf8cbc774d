"""The table of a profiled step."""

from __future__ import annotations

from typing import Any

from r1ray.run.profile import BACKWARD, FORWARD, PACK, step_table

ROW: dict[str, Any] = {
    "step": 3,
    "time/step_s": 2.0,
    "batch/wait_s": 0.2,
    "learner/step_s": 1.5,
    "sync/seconds": 0.2,
    "sync/apply_s": 0.1,
    "rollout/idle_share": 0.25,
}


def test_the_parts_of_a_step_add_up_to_it() -> None:
    """Two steps of 2 s; seconds of the ranks are sums over both."""
    ranks = [{PACK: 0.2, FORWARD: 1.0, BACKWARD: 1.6}, {PACK: 0.2, FORWARD: 1.2, BACKWARD: 1.6}]
    lines = step_table([ROW, {**ROW, "step": 4}], ranks, [0.5, 0.7])
    assert lines == [
        "Time of a step: mean of steps 3 to 4, under the profiler.",
        "",
        "| part | seconds | share |",
        "|---|---|---|",
        "| wait for groups | 0.2000 | 10% |",
        "| training | 1.5000 | 75% |",
        "| - plan, fetch and pack | 0.1000 | 5% |",
        "| - forward and loss | 0.5000 | 25% |",
        "| - backward | 0.8000 | 40% |",
        "| - other | 0.1000 | 5% |",
        "| weight sync | 0.2000 | 10% |",
        "| calls between processes, driver | 0.1000 | 5% |",
        "| the whole step | 2.0000 | 100% |",
        "",
        "Phases are those of rank 0; the ranks spend 1.4000 to 1.5000 s in theirs.",
        "",
        "Checkpoints after these steps: 2, 0.6000 s each, beside the step.",
        "Rollout workers, meanwhile: generate 70%, apply weights 5%, idle 25%.",
    ]


def test_a_replay_has_neither_sync_nor_rollout_workers() -> None:
    row = {key: value for key, value in ROW.items() if not key.startswith(("sync/", "rollout/"))}
    text = "\n".join(step_table([row], [{FORWARD: 1.0}], []))
    assert "sync" not in text
    assert "Rollout workers" not in text
    assert "mean of step 3," in text


def test_steps_without_records_have_no_table() -> None:
    assert step_table([], [], []) == ["No step was profiled."]
