"""Files that describe clusters to Ray, AWS and Kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[2]


def load(name: str) -> dict[str, Any]:
    """A file of one YAML document, by its path in the project."""
    loaded: dict[str, Any] = yaml.safe_load((PROJECT / name).read_text(encoding="utf-8"))
    return loaded
