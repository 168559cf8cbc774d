"""Fixtures of the tests of preflight."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1ray.preflight.prepare import EMBEDDED_FOLDER
from tests.unit.model_folder import write_model
from tests.unit.preflight.machines import LAPTOP


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the model of conf/tiny.yaml, on a laptop."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("r1ray.preflight.prepare.this_machine", lambda: LAPTOP)
    write_model(EMBEDDED_FOLDER)
    return tmp_path
