"""Identify the embedded model in a folder without loading it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import r1ray.tasks.bus
import r1ray.tasks.courtesy
import r1ray.tasks.seeded
from r1ray.util.files import read_json

RECORD = "build.json"
"""The build's record inside the model folder; written last."""

Size = Literal["base", "student"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a Qwen2 model with heads of 32 and a feed-forward of three times the hidden size."""

    hidden: int
    layers: int

    @property
    def heads(self) -> int:
        """Number of attention heads, of 32 values each."""
        return self.hidden // 32


SHAPES: dict[Size, Shape] = {
    "base": Shape(hidden=128, layers=3),  # 687k parameters
    "student": Shape(hidden=64, layers=2),  # 130k parameters
}


def recipe_hash() -> str:
    """Hash of the code that determines a build: this package and the task. It replaces a version number."""
    modules = [Path(module.__file__ or "") for module in (r1ray.tasks.bus, r1ray.tasks.courtesy, r1ray.tasks.seeded)]
    sources = [*sorted(Path(__file__).parent.glob("*.py")), *modules]
    return hashlib.blake2b(b"".join(source.read_bytes() for source in sources), digest_size=16).hexdigest()


def is_current(path: Path) -> bool:
    """Whether `path` holds a complete build of the present recipe, whatever its seed and size.

    Raises IntegrityError for a build whose record cannot be read.
    """
    return (path / RECORD).exists() and read_json(path / RECORD).get("recipe") == recipe_hash()
