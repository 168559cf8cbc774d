"""What benchmarks share: order of measurements, ratios, and refusals on a busy machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import measure


def session(tmp_path: Path, *options: str) -> measure.Session:
    return measure.Session("speed", measure.parser("", repeats=5).parse_args(options), results=tmp_path)


def in_use(monkeypatch: pytest.MonkeyPatch, cores: float) -> None:
    monkeypatch.setattr(measure, "busy_cores", lambda: cores)


def test_variants_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def variant(name: str) -> float:
        order.append(name)
        return float(len(order))

    measured = measure.interleaved({"a": lambda: variant("a"), "b": lambda: variant("b")}, 2)
    assert "".join(order) == "abbaab"
    assert measured == {"a": [4.0, 5.0], "b": [3.0, 6.0]}


def test_a_ratio_is_taken_repetition_by_repetition() -> None:
    found = measure.ratio([1.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    assert (found.median, found.values) == (2.0, (1.0, 2.0, 3.0))
    assert found.spread == 1.0
    assert str(found) == "2.000 (1.000 to 3.000)"


def test_results_are_stored_with_the_machine_and_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_use(monkeypatch, 0.1)
    session(tmp_path, "--write").finish({"tokens": 3}, {"a/b": measure.ratio([1.0, 1.05], [1.0, 1.0])})
    stored = json.loads((tmp_path / "speed.json").read_text())
    assert (stored["tokens"], stored["machine"]["cores_in_use"]) == (3, 0.1)
    assert stored["claims"]["a/b"] == {"median": 1.025, "spread": 0.04878, "values": [1.0, 1.05]}
    session(tmp_path / "unasked").finish({}, {})
    assert not (tmp_path / "unasked").exists()


def test_a_busy_machine_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_use(monkeypatch, 1.7)
    with pytest.raises(SystemExit) as refused:
        session(tmp_path, "--write")
    assert refused.value.code == measure.REFUSED
    assert "the machine is busy: 1.7 cores in use, expected at most 0.3" in capsys.readouterr().out
    session(tmp_path)  # to look at the table only
    session(tmp_path, "--write", "--even-if-busy").finish({}, {})
    assert json.loads((tmp_path / "speed.json").read_text())["machine"]["cores_in_use"] == 1.7


def test_a_wide_spread_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_use(monkeypatch, 0.0)
    wide = {"a/b": measure.ratio([1.0, 2.0], [1.0, 1.0])}
    with pytest.raises(SystemExit):
        session(tmp_path, "--write").finish({}, wide)
    assert not list(tmp_path.iterdir())
    session(tmp_path, "--write", "--even-if-busy").finish({}, wide)
    assert (tmp_path / "speed.json").exists()


def test_a_table_is_aligned() -> None:
    text = measure.table(["size", "ratio"], [["1M", 1.25], ["100M", "none"]])
    assert text.splitlines() == ["size  ratio", "1M    1.250", "100M   none"]
