"""`--profile` with and without a number of steps."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from r1ray.cli import build_app
from r1ray.errors import ConfigError

Started = list[tuple[list[str], int | None]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """What a start would get: the items of the configuration, and the number of steps to profile."""
    calls: Started = []

    class Prepared:
        loaded = None

        @classmethod
        def new(cls, overlays: list[str], overrides: list[str]) -> Prepared:
            cls.items = [*overlays, *overrides]
            return cls()

        def folder(self, *, fresh: bool) -> Prepared:
            return self

        def __enter__(self) -> None: ...
        def __exit__(self, *failure: object) -> None: ...

    def train(loaded: Any, folder: Any, *, resume: bool, profile: int | None) -> int:
        calls.append((Prepared.items, profile))
        return 0

    monkeypatch.setattr("r1ray.preflight.prepare.Preparation", Prepared)
    monkeypatch.setattr("r1ray.cli._start.check", lambda *arguments, **more: {})
    monkeypatch.setattr("r1ray.launch.training.train", train)
    return calls


@pytest.mark.parametrize(
    ("words", "items", "steps"),
    [
        (["tiny"], ["tiny"], None),
        (["tiny", "--profile"], ["tiny"], 3),
        (["tiny", "--profile", "5"], ["tiny"], 5),
        (["--profile", "1", "tiny", "run.steps=9"], ["tiny", "run.steps=9"], 1),
        (["tiny", "7"], ["tiny", "7"], None),  # refused as a file that is not there
    ],
)
def test_the_number_of_steps_is_optional(started: Started, words: list[str], items: list[str], steps: int) -> None:
    assert CliRunner().invoke(build_app(), ["train", *words]).exit_code == 0
    assert started == [(items, steps)]


@pytest.mark.parametrize("numbers", [["0"], ["2", "3"]])
def test_a_number_that_is_none_is_refused(started: Started, numbers: list[str]) -> None:
    result = CliRunner().invoke(build_app(), ["train", "tiny", "--profile", *numbers])
    assert isinstance(result.exception, ConfigError)
    assert "expected one number of steps" in str(result.exception)
    assert started == []
