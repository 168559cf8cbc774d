"""Fixtures of several unit tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from r1ray.run.folder import RunFolder
from r1ray.run.identity import RunIdentity
from r1ray.util.imports import IMPORT_PATH
from tests.unit.fake_run import World

Make = Callable[..., World]


@pytest.fixture(autouse=True)
def _import_folders_of_this_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands that run in this process look for modules in their working directory; the next test must not."""
    monkeypatch.setenv(IMPORT_PATH, "")
    path = list(sys.path)
    yield
    sys.path[:] = path


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    """A new run folder, which this process holds as its driver."""
    identity = RunIdentity.new(vocab_hash="v", config_hash="c", model_hash="m")
    with RunFolder.create(tmp_path / "run", "run: {}\n", identity) as made:
        yield made


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes a run of 6 steps, a checkpoint at every second; keyword arguments are keys of the configuration."""
    worlds: list[World] = []

    def made(**changes: Any) -> World:
        worlds.append(World(tmp_path / str(len(worlds)), **changes))
        return worlds[-1]

    yield made
    for world in worlds:
        world.close()
