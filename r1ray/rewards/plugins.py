"""User-defined rewards, named by import path: `module:function`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from r1ray.errors import ConfigError, DataError
from r1ray.rewards.base import Call, Reward, Sample
from r1ray.util.imports import load_object

_WHAT = "the reward"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserReward(Reward):
    """Call a function `(sample: Sample, **params) -> float` in a worker process.

    Raises ConfigError if the function cannot be imported or does not accept the parameters.
    """

    target: str  # module:function
    params: Mapping[str, Any]

    def __post_init__(self) -> None:
        function = load_object(self.target, what=_WHAT)
        if not callable(function):
            raise ConfigError(f"{_WHAT} {self.target}: expected a function, got {function!r:.80}")
        signature = inspect.signature(function)
        try:
            signature.bind(None, **self.params)
        except TypeError as e:
            given = ", ".join(self.params) or "none"
            raise ConfigError(
                f"{_WHAT} {self.target} is called with a sample and the parameters {given}, but its signature is "
                f"{signature}: {e}"
            ) from e

    def __call__(self, sample: Sample) -> Call:
        """See Reward. The call of the function in a worker process."""
        args = {"target": self.target, "sample": sample.to_wire(), "params": dict(self.params)}
        return Call(function="r1ray.rewards.plugins:judge", args=args, memory_bytes=None)

    @property
    def preload(self) -> tuple[str, ...]:
        """See Reward."""
        return (self.target.partition(":")[0],)


def judge(target: str, sample: dict[str, Any], params: dict[str, Any]) -> float:
    """Call the function `target`. Raises DataError if it does not return a finite number."""
    sample["messages"] = tuple(sample["messages"])
    value = load_object(target, what=_WHAT)(Sample(**sample), **params)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{target}: expected a finite number, got {value!r:.80}")
    return float(value)
