"""`r1ray doctor` on this machine: with and without a configuration, as text and as JSON, and its exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from r1ray.cli import main
from r1ray.errors import ConfigError
from r1ray.preflight import doctor
from r1ray.preflight.doctor import examine
from r1ray.preflight.prepare import Preparation
from tests.unit.model_folder import write_model
from tests.unit.preflight.doctor_support import healthy


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["r1ray", "doctor", *words])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_machine_without_defects_has_no_errors() -> None:
    assert {f.verdict for f in examine(None, healthy())} == {"ok"}


def test_a_configuration_adds_its_model_data_and_limits(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    good = Preparation.new(["tiny"], [f"model.path={model}", f"run.dir={tmp_path / 'run'}"])
    assert [f for f in examine(good, healthy()) if f.verdict == "error"] == []
    wrong = Preparation.new(["tiny"], [f"model.path={model}", "rollout.engine.kv_cache_gib=0.0001"])
    assert [f.what for f in examine(wrong, healthy()) if f.verdict == "error"] == ["rollout.engine.kv_cache_gib"]
    lost = Preparation.new(["tiny"], [f"model.path={tmp_path / 'none'}"])
    assert [f.what for f in examine(lost, healthy()) if f.verdict == "error"] == ["model.path"]
    unbuilt = Preparation.new(["tiny"], [])
    assert "model.path" not in {f.what for f in examine(unbuilt, healthy())}


@pytest.mark.parametrize(("broken", "code"), [(False, 0), (True, 1)])
def test_the_exit_code_is_for_scripts(
    broken: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = {7: 256} if broken else {}  # RLIMIT_NOFILE
    monkeypatch.setattr(doctor, "this_system", lambda sandbox: healthy(limits=limits))
    assert run(monkeypatch, "--json") == code
    found = json.loads(capsys.readouterr().out)
    assert (found["errors"], found["pairs"]) == (code, [])
    assert {"node", "what", "verdict", "detail", "meaning", "fix"} == set(found["findings"][0])
    assert run(monkeypatch) == code
    text = capsys.readouterr().out
    assert f"{code} errors" in text
    assert ("fix:" in text) == broken


def test_a_wrong_configuration_and_an_unreachable_cluster_are_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "tiny", "run.stepz=3") == ConfigError.exit_code
    assert run(monkeypatch, "--cluster", "tiny", "ray.address=127.0.0.1:1") == ConfigError.exit_code
    assert "no Ray cluster answers there" in capsys.readouterr().err
