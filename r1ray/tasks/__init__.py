"""Synthetic tasks by name, or user-defined ones by import path. Modules are imported on first use."""

from __future__ import annotations

import inspect
from typing import Any

from r1ray.errors import ConfigError
from r1ray.tasks import gym
from r1ray.tasks.base import SyntheticTask
from r1ray.util.hints import suggestion
from r1ray.util.imports import load_object

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
    "writing": "r1ray.tasks.writing:WritingTask",
}
"""Name of a shipped task -> `module:class`."""


def is_user_defined(name: str) -> bool:
    """Whether `name` is the import path of a user's own task, `module:Class`."""
    return ":" in name


def is_foreign(name: str) -> bool:
    """Whether the task's checker is not r1ray's own: it may hang or crash, and belongs in a worker process."""
    return is_user_defined(name) or name.startswith(gym.PREFIX)


def get_task(name: str, params: dict[str, Any]) -> SyntheticTask:
    """Make the task `name` with its parameters.

    `name` is a key of TASKS, `reasoning_gym/<task>`, or `module:Class` for a user-defined class that
    implements SyntheticTask. Raises ConfigError for an unknown name, an object that is not such a
    class, an unknown parameter or a wrong value.
    """
    if name.startswith(gym.PREFIX):
        return gym.GymTask(name.removeprefix(gym.PREFIX), params)
    task_class = _task_class(name)
    signature = inspect.signature(task_class)
    accepted = list(signature.parameters)
    for key in params:
        if key not in accepted:
            raise ConfigError(
                f"the task {name} has no parameter {key!r}{suggestion(key, accepted)}; "
                f"its parameters are {', '.join(accepted) or 'none'}"
            )
    try:
        signature.bind(**params)
    except TypeError as e:
        raise ConfigError(f"the task {name}: {e}; its parameters are {', '.join(accepted)}") from e
    task: SyntheticTask = task_class(**params)
    return task


def _task_class(name: str) -> type:
    if not is_user_defined(name) and name not in TASKS:
        raise ConfigError(
            f"there is no synthetic task {name!r}{suggestion(name, TASKS)}; "
            f"choose one of {', '.join(sorted(TASKS))}, {gym.PREFIX}<task>, or module:Class"
        )
    found = load_object(TASKS.get(name, name), what="the task")
    # The name may come from a data file: only classes made to be tasks are called.
    methods = [getattr(found, method, None) for method in ("problem", "check")]
    if not (isinstance(found, type) and all(map(callable, methods))):
        raise ConfigError(f"the task {name}: expected a class with the methods problem and check, got {found!r:.80}")
    return found
