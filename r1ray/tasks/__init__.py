"""Synthetic tasks by name. A task's module is imported when the task is first asked for."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from r1ray.errors import ConfigError
from r1ray.tasks.base import SyntheticTask
from r1ray.util.hints import suggestion

TASKS = {
    "arithmetic": "r1ray.tasks.arithmetic:ArithmeticTask",
    "bus": "r1ray.tasks.bus:BusTask",
    "candles": "r1ray.tasks.candles:CandlesTask",
    "cipher": "r1ray.tasks.cipher:CipherTask",
    "courtesy": "r1ray.tasks.courtesy:CourtesyTask",
    "countdown": "r1ray.tasks.countdown:CountdownTask",
    "knights": "r1ray.tasks.knights:KnightsTask",
    "parentheses": "r1ray.tasks.parentheses:ParenthesesTask",
    "syllogism": "r1ray.tasks.syllogism:SyllogismTask",
    "transpose": "r1ray.tasks.transpose:TransposeTask",
}
"""Task name -> `module:class`."""


def get_task(name: str, params: dict[str, Any]) -> SyntheticTask:
    """The task `name` with its parameters. Raises ConfigError for an unknown name or parameter, or a bad value."""
    if name not in TASKS:
        raise ConfigError(
            f"there is no synthetic task {name!r}{suggestion(name, TASKS)}; there are {', '.join(sorted(TASKS))}"
        )
    module, _, class_name = TASKS[name].partition(":")
    task_class = getattr(importlib.import_module(module), class_name)
    accepted = list(inspect.signature(task_class).parameters)
    for key in params:
        if key not in accepted:
            raise ConfigError(
                f"the task {name} has no parameter {key!r}{suggestion(key, accepted)}; it takes {accepted}"
            )
    task: SyntheticTask = task_class(**params)
    return task
