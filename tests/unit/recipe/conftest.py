"""A working directory for recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1ray.recipe.folder import code_versions

VERSIONS = code_versions()


@pytest.fixture
def recipe_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with the versions of the code read once: reading them calls git,
    seven times a recipe.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("r1ray.recipe.runner.code_versions", lambda: VERSIONS)
