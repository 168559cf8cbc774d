"""Import paths of user-defined objects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from r1ray.errors import ConfigError
from r1ray.util.imports import add_import_folders, import_folders, load_object, source_file


def test_load_object() -> None:
    assert load_object("pathlib:Path", what="the reward") is Path


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("pathlib", "the loss 'pathlib': expected module:name"),
        (":Path", "expected module:name"),
        ("pathlib:", "expected module:name"),
        ("pathlib:Way", "the loss pathlib:Way cannot be imported: AttributeError"),
        ("no_such_module:f", "the loss no_such_module:f cannot be imported: ModuleNotFoundError"),
    ],
)
def test_load_object_refuses_by_name(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_object(path, what="the loss")


def test_module_that_fails_on_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "fails_on_import.py").write_text("raise RuntimeError('no licence')\n")
    with pytest.raises(ConfigError, match="the reward fails_on_import:f cannot be imported: RuntimeError: no licence"):
        load_object("fails_on_import:f", what="the reward")
    assert source_file("fails_on_import:f", what="the reward") == tmp_path / "fails_on_import.py"


def test_modules_lie_in_the_import_folders(tmp_path: Path) -> None:
    """The folder that was added last is searched first; installed modules come before both."""
    for name, value in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lies_in_both.py").write_text(f"def f(): return {value}\n")
    (tmp_path / "a" / "json.py").write_text("raise RuntimeError('hides the standard library')\n")
    add_import_folders([tmp_path / "a"])
    add_import_folders([tmp_path / "b"])
    assert import_folders() == [str(tmp_path / "b"), str(tmp_path / "a")]
    assert load_object("lies_in_both:f", what="the reward")() == 2
    assert source_file("lies_in_both:f", what="the reward") == tmp_path / "b" / "lies_in_both.py"
    load_object("json:dumps", what="the reward")
    with pytest.raises(ConfigError, match=f"No module named 'lies_nowhere' .also looked in {tmp_path / 'b'}, "):
        load_object("lies_nowhere:f", what="the reward")


def test_other_processes_inherit_the_import_folders(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("f = 7\n")
    add_import_folders([tmp_path])
    program = "from r1ray.util.imports import load_object; print(load_object('beside_it:f', what='x'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "7\n"
