"""Import user-defined objects by path, such as `my_project.rewards:brevity`.

A module is found where Python finds it, else in the import folders: those of the configuration files, and the working
directory. The environment variable `R1RAY_IMPORT_PATH` carries them to every process of a run.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from r1ray.errors import ConfigError

IMPORT_PATH = "R1RAY_IMPORT_PATH"
"""Environment variable with the import folders, separated as in PYTHONPATH."""


def add_import_folders(folders: Iterable[Path]) -> None:
    """Look for user-defined modules in `folders` too, before the import folders that this process has already."""
    new = [str(folder.absolute()) for folder in folders]
    os.environ[IMPORT_PATH] = os.pathsep.join(dict.fromkeys([*new, *import_folders()]))


def import_folders() -> list[str]:
    """The import folders of this process, in the order in which they are searched."""
    return [folder for folder in os.environ.get(IMPORT_PATH, "").split(os.pathsep) if folder]


def _extend_path() -> None:
    """Put the import folders behind Python's own path: a user's file never hides an installed package."""
    sys.path += [folder for folder in import_folders() if folder not in sys.path]


def load_object(path: str, *, what: str) -> Any:
    """Import the object at `path`, which has the form `module:name`.

    `what` says in error messages what the object is for, e.g. "the reward".
    Raises ConfigError if `path` has another form, the module cannot be imported or it does not
    define the name.
    """
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise ConfigError(f"{what} {path!r}: expected module:name, e.g. my_project.rewards:brevity")
    _extend_path()
    try:
        return getattr(importlib.import_module(module_name), name)
    except Exception as e:  # importing a user's module may raise anything
        looked = f" (also looked in {', '.join(import_folders())})" if isinstance(e, ModuleNotFoundError) else ""
        raise ConfigError(f"{what} {path} cannot be imported: {type(e).__name__}: {e}{looked}") from e


def source_file(path: str, *, what: str) -> Path:
    """Find the file that defines the module of `path` (`module:name`) without importing the module.

    Raises ConfigError if no file of that module is on Python's path.
    """
    module = path.partition(":")[0]
    _extend_path()
    try:
        spec = importlib.util.find_spec(module)
    except Exception as e:  # it imports the packages around the module, which may raise anything
        raise ConfigError(f"{what} {path} cannot be found: {type(e).__name__}: {e}") from e
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ConfigError(f"{what} {path} cannot be found: no file of the module {module} is on Python's path")
    return Path(spec.origin)
