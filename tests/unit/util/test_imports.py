"""Import paths of user-defined objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1ray.errors import ConfigError
from r1ray.util.imports import load_object, source_file


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
