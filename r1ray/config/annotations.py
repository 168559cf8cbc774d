"""Annotations of a configuration key: `Annotated[int, Range(ge=1), Doc("learner processes")]`.

`r1ray.config.keys` reads them. The field has the rest: the type, `Literal` for choices, the default.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Doc:
    """One sentence for the reader of conf/base.yaml, without the type, the range and the choices."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Bounds of a number, or of every number in a list or a map. NaN and infinities are never inside."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a finite `value` is within the bounds."""
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def __str__(self) -> str:
        """The bounds in signs, e.g. "> 0 and <= 1"; empty if there are none."""
        bounds = ((">=", self.ge), (">", self.gt), ("<=", self.le), ("<", self.lt))
        return " and ".join(f"{sign} {_number(bound)}" for sign, bound in bounds if bound is not None)


@dataclass(frozen=True, slots=True)
class Importable:
    """Names of functions that r1ray has; the key also takes the import path of another one, `module:function`."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NonEmpty:
    """The string has a character other than white space."""


def _number(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else f"{bound:g}"
