"""Figures of finished, killed, just started and damaged run folders."""

import json

import pytest

from r1ray.errors import ConfigError, IntegrityError
from r1ray.report.figures import figures
from r1ray.run.metrics import MetricsWriter, read_metrics
from tests.synthetic_run import write_run


def test_figures_of_a_finished_run(tmp_path):
    found = figures(write_run(tmp_path))
    rows = read_metrics(tmp_path)
    assert found["heldout_source"] == "bus"
    assert (found["heldout_step"], found["steps"]) == (40, 40)
    assert (found["heldout_accuracy_start"], found["heldout_greedy_accuracy_start"]) == (0.15, 0.05)
    assert found["heldout_accuracy"] == pytest.approx(0.865, abs=1e-3)
    assert (found["heldout_format_start"], found["heldout_length_start"]) == (0.69, 17.0)
    assert (found["length_start"], found["length_end"]) == (rows[0]["length/mean"], rows[-1]["length/mean"])
    assert found["seconds_to_first_step"] == 40.5
    assert found["training_seconds"] == pytest.approx(39 * 2.5)
    tokens = sum(256 * row["length/mean"] for row in rows[1:])
    assert found["completion_tokens_per_second"] == pytest.approx(tokens / (39 * 2.5))
    assert (found["staleness_max"], found["resumes"], found["workers_lost"], found["dropped_groups"]) == (1, 0, 0, 0)
    assert json.loads(json.dumps(found)) == found


def test_time_without_a_driver_and_repeated_steps_do_not_count(tmp_path):
    found = figures(write_run(tmp_path, killed_at=22))
    assert (found["steps"], found["resumes"], found["workers_lost"]) == (40, 1, 1)
    # 38 intervals: the one across the 300 seconds between kill and resume does not count.
    assert found["training_seconds"] == pytest.approx(38 * 2.5)
    assert found["seconds_to_first_step"] == 40.5


def test_a_failed_start_does_not_count_in_the_time_to_the_first_step(tmp_path):
    write_run(tmp_path, steps=2)
    events = tmp_path / "events.jsonl"
    earlier = json.dumps({"time": 1_700_000_000.0, "kind": "started"})
    events.write_text(earlier + "\n" + events.read_text())
    assert figures(tmp_path)["seconds_to_first_step"] == 40.5


def test_excluded_rows_and_warnings_are_counted(tmp_path):
    write_run(tmp_path, steps=2)
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.event("worker_ready", worker="rollout-0", left_out={"maths": {"too_long": 3}})
        writer.event("reward_hacking", metric="train/kl")
    found = figures(tmp_path)
    assert (found["left_out/maths/too_long"], found["hacking_warnings"]) == (3, 1)


def test_figures_of_one_step_without_evaluations_are_none(tmp_path):
    found = figures(write_run(tmp_path, steps=1, evaluate_every=0))
    for key in ("heldout_source", "heldout_accuracy", "heldout_accuracy_start", "heldout_format", "heldout_length"):
        assert found[key] is None
    assert found["completion_tokens_per_second"] is None
    assert found["length_start"] == found["length_end"]
    assert found["seconds_to_first_step"] == 40.5


def test_a_run_that_never_trained_has_zero_steps(tmp_path):
    found = figures(write_run(tmp_path, steps=0, evaluate_every=0))
    assert found["steps"] == 0
    assert found["seconds_to_first_step"] is None


def test_the_primary_source_is_the_first_of_the_configuration(tmp_path):
    write_run(tmp_path, steps=1, evaluate_every=0)
    with MetricsWriter(tmp_path, tensorboard=False) as w:
        w.evaluation({"step": 1, "source": "extra", "accuracy": 0.9})
        w.evaluation({"step": 1, "source": "bus", "accuracy": 0.4})
    found = figures(tmp_path)
    assert (found["heldout_source"], found["heldout_accuracy"]) == ("bus", 0.4)
    assert found["heldout_accuracy_start"] is None  # the base policy was not evaluated


def test_means_ignore_values_that_are_not_finite(tmp_path):
    write_run(tmp_path, steps=2)
    with MetricsWriter(tmp_path, tensorboard=False) as w:
        w.step(2, {"mismatch/max": float("nan"), "sync/seconds": float("inf")})
    found = figures(tmp_path)
    assert found["mismatch_max"] < 1e-3
    assert found["sync_seconds"] < 1


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="run folder"):
        figures(tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    write_run(tmp_path, steps=1)
    (tmp_path / "evaluations.jsonl").write_text("{}}\n")
    with pytest.raises(IntegrityError, match=r"evaluations\.jsonl"):
        figures(tmp_path)
