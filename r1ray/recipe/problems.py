"""Collects what is wrong with a recipe's files, so that all of it is told at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from r1ray.config.problems import Problem, Provenance
from r1ray.config.sources import Source
from r1ray.run.policy import EVALUATION
from r1ray.util.hints import nearest

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TAKEN = ("logs", "stages", "lock", "recipe", "report")


class ProblemCollector:
    """Base of `reading`: looks at parts of a file and notes what cannot be, with its line."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.provenance = Provenance()

    def known(self, source: Source, key: str, content: dict[str, Any], allowed: Sequence[str]) -> None:
        """Note the keys of `content` that are not among `allowed`."""
        for name, value in content.items():
            if name not in allowed:
                full = f"{key}.{name}" if key else name
                self.problem(full, value, "no such key", nearest(name, allowed), source)

    def map(self, source: Source, key: str, value: Any) -> dict[str, Any]:
        """`value` as a map; nothing is an empty one."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.problem(key, value, "is a section, not a value", "write a map", source)
            return {}
        return {str(k): v for k, v in value.items()}

    def typed(self, source: Source, key: str, value: Any, wanted: type) -> Any:
        """`value`, noted where it is not of the type `wanted`; a number must be a whole one from 0."""
        names = {str: "a text", int: "a whole number from 0", bool: "true or false"}
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if not (whole if wanted is int else isinstance(value, wanted)):
            self.problem(key, value, f"is not {names[wanted]}", f"give {names[wanted]}", source)
        return value

    def problem(self, key: str, value: Any, message: str, fix: str, source: Source | None = None) -> None:
        """Note one problem; `source` is the file that states it."""
        if source is not None:
            self.provenance[key] = source.origin(key)
        self.problems.append(Problem(key=key, value=value, message=message, fix=fix))

    def nameable(self, source: Source, key: str, name: str) -> bool:
        """Whether a stage or an input may have this name, noted where not."""
        if not _NAME.fullmatch(name) or name in _TAKEN or name.startswith(EVALUATION):
            fix = f"small letters, digits and _, not {', '.join(_TAKEN)} nor {EVALUATION}..."
            self.problem(key, name, "is no name of a stage", fix, source)
            return False
        return True
