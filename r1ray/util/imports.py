"""Import user-defined objects by path, such as `my_project.rewards:brevity`."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from r1ray.errors import ConfigError


def load_object(path: str, *, what: str) -> Any:
    """Import the object at `path`, which has the form `module:name`.

    `what` says in error messages what the object is for, e.g. "the reward".
    Raises ConfigError if `path` has another form, the module cannot be imported or it does not
    define the name.
    """
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise ConfigError(f"{what} {path!r}: expected module:name, e.g. my_project.rewards:brevity")
    try:
        return getattr(importlib.import_module(module_name), name)
    except Exception as e:  # importing a user's module may raise anything
        raise ConfigError(f"{what} {path} cannot be imported: {type(e).__name__}: {e}") from e


def source_file(path: str, *, what: str) -> Path:
    """Find the file that defines the module of `path` (`module:name`) without importing the module.

    Raises ConfigError if no file of that module is on Python's path.
    """
    module = path.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except Exception as e:  # it imports the packages around the module, which may raise anything
        raise ConfigError(f"{what} {path} cannot be found: {type(e).__name__}: {e}") from e
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ConfigError(f"{what} {path} cannot be found: no file of the module {module} is on Python's path")
    return Path(spec.origin)
