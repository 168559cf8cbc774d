"""Which interpreter programs get, and what of the host comes along with it."""

import os
import sys
from pathlib import Path

import pytest

from r1ray.errors import ConfigError
from r1ray.rewards.execution import sandbox

NAME = f"python{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prefix with an interpreter and with secrets; the system has no other one."""
    for name in ("bin", "lib", "secrets"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin" / NAME).write_text("")
    (tmp_path / "bin" / NAME).chmod(0o755)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path).startswith(str(tmp_path)) and access(path, mode))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    monkeypatch.setattr(sandbox, "_readable_by_others", lambda path: True)
    return tmp_path


def test_only_bin_and_lib_of_the_interpreter_are_visible(prefix: Path) -> None:
    python = sandbox.Sandbox("bubblewrap").python
    assert python == str(prefix / "bin" / NAME)
    bound = [option for option in sandbox._system(python) if option.startswith(str(prefix))]
    assert set(bound) == {str(prefix / name) for name in ("bin", "lib", "lib64")}
    assert "/" not in sandbox._system("/bin/python3")


def test_interpreter_in_a_home_folder_is_refused(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(prefix))
    with pytest.raises(ConfigError, match=f"is in the home folder {prefix}"):
        _ = sandbox.Sandbox("bubblewrap").python
    monkeypatch.setenv("HOME", str(prefix / "secrets"))
    assert sandbox.Sandbox("bubblewrap").python
