"""What is written is read back, also after kills, rewinds and with numbers that JSON lacks."""

import json
import math
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from r1ray.errors import ConfigError, IntegrityError
from r1ray.run.metrics import MetricsWriter, read_evaluations, read_events, read_metrics, read_transcripts


def writer(run_dir: Path, *, tensorboard: bool = False) -> MetricsWriter:
    ticks = count(100)
    return MetricsWriter(run_dir, tensorboard=tensorboard, clock=lambda: float(next(ticks)))


def test_what_is_written_is_read_back_at_once(tmp_path):
    with writer(tmp_path) as w:
        row = w.step(0, {"reward/mean": 0.5, "sync/workers": 2})
        assert read_metrics(tmp_path) == [row] == [{"step": 0, "time": 100.0, "reward/mean": 0.5, "sync/workers": 2}]
        w.event("started", pid=7)
        assert read_events(tmp_path) == [{"time": 101.0, "kind": "started", "pid": 7}]


def test_numbers_that_json_lacks_come_back_as_floats_and_the_file_is_plain_json(tmp_path):
    with writer(tmp_path) as w:
        w.step(
            0,
            {
                "train/loss": math.nan,
                "train/kl": math.inf,
                "train/lr": -math.inf,
                "x": np.float32(0.5),
                "n": np.int64(3),
            },
        )
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail)["train/loss"] == "NaN"
    (row,) = read_metrics(tmp_path)
    assert math.isnan(row["train/loss"])
    assert (row["train/kl"], row["train/lr"], row["x"], row["n"]) == (math.inf, -math.inf, 0.5, 3)


def test_a_text_that_spells_a_number_stays_text_and_lone_surrogates_survive(tmp_path):
    with writer(tmp_path) as w:
        w.transcript({"step": 0, "text": "NaN", "prompt": "half \udc80 of\nit"})
    assert read_transcripts(tmp_path) == [{"step": 0, "text": "NaN", "prompt": "half \udc80 of\nit"}]


def test_a_rewind_voids_the_repeated_steps_of_every_kind(tmp_path):
    with writer(tmp_path) as w:
        for step in range(7):
            w.step(step, {"reward/mean": step})
            w.transcript({"step": step, "text": "old"})
            w.evaluation({"step": step, "source": "bus", "accuracy": step / 10})
    with writer(tmp_path) as w:
        w.rewind(5)
        w.step(5, {"reward/mean": 50})
        w.transcript({"step": 5, "text": "new"})
    assert [(r["step"], r["reward/mean"]) for r in read_metrics(tmp_path)] == [(i, i) for i in range(5)] + [(5, 50)]
    assert [r["text"] for r in read_transcripts(tmp_path)] == ["old"] * 5 + ["new"]
    # Policy 5 is the same policy in both timelines, so its evaluation stands; that of policy 6 does not.
    assert [r["step"] for r in read_evaluations(tmp_path)] == [0, 1, 2, 3, 4, 5]


def test_the_last_line_of_a_step_and_of_a_source_counts(tmp_path):
    with writer(tmp_path) as w:
        for value in (1.0, 2.0):
            w.step(0, {"x": value})
            w.evaluation({"step": 0, "source": "bus", "accuracy": value})
        w.evaluation({"step": 0, "source": "long", "accuracy": 3.0})
    assert [r["x"] for r in read_metrics(tmp_path)] == [2.0]
    assert [r["accuracy"] for r in read_evaluations(tmp_path)] == [2.0, 3.0]


def test_a_line_torn_by_a_kill_is_not_read_and_is_cut_off_by_the_next_writer(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "x": 1}\n{"step": 1, "x"')
    assert [r["step"] for r in read_metrics(tmp_path)] == [0]
    with writer(tmp_path) as w:
        w.step(1, {"x": 2})
    assert [(r["step"], r["x"]) for r in read_metrics(tmp_path)] == [(0, 1), (1, 2)]


@pytest.mark.parametrize("damage", ["{oops}", "[1]"])
def test_damage_inside_a_file_is_named_with_its_line(tmp_path, damage):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n' + damage + "\n")
    with pytest.raises(IntegrityError, match="line 2"):
        read_metrics(tmp_path)


def test_a_run_folder_without_files_has_no_rows(tmp_path):
    assert (
        read_metrics(tmp_path)
        == read_evaluations(tmp_path)
        == read_transcripts(tmp_path)
        == read_events(tmp_path)
        == []
    )


def test_tensorboard_has_the_same_numbers_and_forgets_voided_steps(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with writer(tmp_path, tensorboard=True) as w:
        for step in range(4):
            w.step(step, {"reward/mean": step / 2})
        w.rewind(2)
        w.step(2, {"reward/mean": 20.0})
        w.evaluation({"step": 3, "source": "bus", "accuracy": 0.25, "versions": [3], "problems": 8})
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in board.Scalars("reward/mean")] == [(0, 0.0), (1, 0.5), (2, 20.0)]
    assert [(e.step, e.value) for e in board.Scalars("evaluation/bus/accuracy")] == [(3, 0.25)]
    assert set(board.Tags()["scalars"]) == {"reward/mean", "evaluation/bus/accuracy", "evaluation/bus/problems"}


def test_wandb_without_its_package_is_refused_with_the_key_to_change(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"logging\.wandb_project='mine'"):
        MetricsWriter(tmp_path, tensorboard=False, wandb_project="mine")


def test_closing_twice_is_harmless_and_writing_after_it_fails(tmp_path):
    w = writer(tmp_path, tensorboard=True)
    w.close()
    w.close()
    with pytest.raises(ValueError, match="closed"):
        w.step(0, {})
