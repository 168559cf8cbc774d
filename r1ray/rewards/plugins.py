"""Rewards of the user's own: `module:function`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1ray.errors import ConfigError, DataError
from r1ray.rewards.base import Call, Reward, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class UserReward(Reward):
    """A function `(sample: Sample, **params) -> float`, called in a worker process."""

    target: str  # module:function
    params: Mapping[str, Any]

    def __post_init__(self) -> None:
        try:
            signature = inspect.signature(_function(self.target))
        except Exception as e:  # importing a user's module may raise anything
            raise ConfigError(f"the reward {self.target} cannot be imported: {type(e).__name__}: {e}") from e
        try:
            signature.bind(None, **self.params)
        except TypeError as e:
            given = ", ".join(self.params) or "none"
            raise ConfigError(
                f"the reward {self.target} is called with a sample and the params {given}, but its signature is "
                f"{signature}: {e}"
            ) from e

    def __call__(self, sample: Sample) -> Call:
        args = {"target": self.target, "sample": sample.to_wire(), "params": dict(self.params)}
        return Call(function="r1ray.rewards.plugins:judge", args=args, memory_bytes=None)

    @property
    def preload(self) -> tuple[str, ...]:
        """See Reward."""
        return (self.target.partition(":")[0],)


def judge(target: str, sample: dict[str, Any], params: dict[str, Any]) -> float:
    """Call the function. Raises DataError where it returns no finite number."""
    sample["messages"] = tuple(sample["messages"])
    value = _function(target)(Sample(**sample), **params)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{target} returned {value!r:.80}: a reward is a finite number")
    return float(value)


def source_file(target: str) -> Path:
    """The file that the function's module is read from. Raises ConfigError where there is none."""
    module = target.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except Exception as e:  # it imports the packages around the module, which may raise anything
        raise ConfigError(f"the reward {target} cannot be found: {type(e).__name__}: {e}") from e
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ConfigError(f"the reward {target} cannot be found: no file of the module {module} is on Python's path")
    return Path(spec.origin)


def _function(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
