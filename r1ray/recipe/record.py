"""The recipe's record for reports, and configurations as plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import yaml

from r1ray.recipe.lineage import Lineage
from r1ray.recipe.records import Recipe
from r1ray.recipe.tasks import Task

FORMAT = 1


def recipe_json(recipe: Recipe, tasks: Sequence[Task], states: Mapping[str, str]) -> bytes:
    """recipe.json: the stages in order with kind, what they read, state, wall time in seconds (null before the end), output."""
    stages = []
    for task in tasks:
        lineage = Lineage.read(task.folder)
        stages.append(
            {
                "name": task.name,
                "kind": task.kind.name,
                "doc": task.stage.doc,
                "inputs": [read.reference for read in task.reads],
                "state": states.get(task.name, "to do"),
                "seconds": lineage.seconds if lineage else None,
                "output": str(task.output),
                "published": task.stage.published,
            }
        )
    record = {
        "format": FORMAT,
        "name": recipe.name,
        "doc": recipe.doc,
        "dir": str(recipe.dir),
        "seed": recipe.seed,
        "files": list(recipe.files),
        "stages": stages,
        "claims": [asdict(claim) for claim in recipe.claims],
    }
    return json.dumps(record, indent=1, ensure_ascii=False).encode()


def plain_config(task: Task) -> dict[str, Any]:
    """The resolved configuration as plain values; empty where the stage has none."""
    return yaml.safe_load(task.config_yaml) if task.config_yaml else {}
