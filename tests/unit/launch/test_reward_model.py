"""Training of reward models: what is stored meanwhile, what a resume refuses, and what a start refuses."""

from __future__ import annotations

import dataclasses
import signal
import sys
from pathlib import Path

import pytest

from learner.preference.train import Settings
from r1ray.cli import main
from r1ray.errors import ConfigError
from r1ray.launch.reward_model import _begin, _clear, _identity
from tests.unit.model_folder import write_model

SETTINGS = Settings(kind="pairwise", judge="summary")


def test_a_training_is_the_same_whatever_its_ranks_and_another_one_with_other_rows_or_settings(tmp_path: Path) -> None:
    model, data = write_model(tmp_path / "base"), tmp_path / "pairs.jsonl"
    data.write_text("{}")
    identity = _identity(data, model, SETTINGS)
    checkpoints, run_id = _begin(tmp_path / "out", identity, False)
    more_ranks = _identity(data, model, dataclasses.replace(SETTINGS, ranks=4, zero_stage=3))
    assert _begin(tmp_path / "out", more_ranks, True) == (checkpoints, run_id)
    with pytest.raises(ConfigError, match="--resume: lr changed since"):
        _begin(tmp_path / "out", _identity(data, model, dataclasses.replace(SETTINGS, lr=1.0)), True)
    data.write_text("[]")
    (model / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(ConfigError, match="--resume: data, model changed since"):
        _begin(tmp_path / "out", _identity(data, model, SETTINGS), True)


def test_an_unfinished_training_is_not_begun_over_and_a_cleared_one_may_be(tmp_path: Path) -> None:
    identity = {"data": "a"}
    with pytest.raises(ConfigError, match="nothing was begun there"):
        _begin(tmp_path / "out", identity, True)
    checkpoints, _ = _begin(tmp_path / "out", identity, False)
    (checkpoints / "step_000020").mkdir()
    with pytest.raises(ConfigError, match="holds an unfinished training: go on with --resume"):
        _begin(tmp_path / "out", identity, False)
    _clear(checkpoints)
    _begin(tmp_path / "out", {"data": "b"}, False)
    assert [p.name for p in checkpoints.iterdir()] == ["training.json"]


def test_bfloat16_without_float32_masters_is_refused_before_a_process_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in (1, 2, 3):
        assert dataclasses.replace(SETTINGS, dtype="bfloat16", zero_stage=stage).dtype == "bfloat16"
    with pytest.raises(ConfigError, match="--zero-stage 1"):
        dataclasses.replace(SETTINGS, dtype="bfloat16")

    started: list[object] = []
    monkeypatch.setattr("r1ray.launch.reward_model.train_reward_model", lambda *_, **settings: started.append(settings))
    options = ["--model", str(write_model(tmp_path / "base")), "--out", str(tmp_path / "out"), "--kind", "pairwise"]
    words = ["r1ray", "reward-model", "train", str(tmp_path / "pairs.jsonl"), *options, "--dtype", "bfloat16"]
    monkeypatch.setattr(sys, "argv", words)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as caught:
            main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == 2
    assert "--zero-stage 1" in capsys.readouterr().err
    assert not started
