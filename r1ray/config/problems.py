"""Problems of a configuration, each with its key, value, origin and remedy, as one ConfigError."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from r1ray.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One reason to refuse a configuration. Producers: `load`, `checks`, `preflight`. Consumer: `refuse`."""

    key: str  # dotted, as on the command line
    value: Any
    message: str  # what is wrong with the value; without `fix`: what was expected
    fix: str | None  # what would be right

    def line(self, origin: str | None) -> str:
        """The problem in one line; `origin` is where the value was set.

        `learner.ranks: expected an integer >= 1, got 'two' (conf/my.yaml:12)`, or with a fix
        `learner.minibatches = 5 (command line): does not divide learner.groups_per_step = 32; one of 1, 2, 4, ...`
        """
        where = f" ({origin})" if origin else ""
        if self.fix is None:
            return f"{self.key}: {self.message}, got {show(self.value)}{where}"
        return f"{self.key} = {show(self.value)}{where}: {self.message}; {self.fix}"


class Provenance(dict[str, str]):
    """Dotted key -> where its value was set: `file:line`, or `command line`."""

    def of(self, key: str) -> str | None:
        """Return where `key`, or the nearest section above it, was set; None if nothing set it."""
        parts = key.split(".")
        for end in range(len(parts), 0, -1):
            if (origin := self.get(".".join(parts[:end]))) is not None:
                return origin
        return None


def refuse(problems: Sequence[Problem], provenance: Provenance) -> None:
    """Raise one ConfigError with a line for each problem; return if there is none."""
    if not problems:
        return
    lines = [p.line(provenance.of(p.key)) for p in problems]
    if len(lines) == 1:
        raise ConfigError(lines[0])
    raise ConfigError(f"{len(lines)} problems in the configuration:\n" + "\n".join(f"  {line}" for line in lines))


def show(value: Any) -> str:
    """Return the value as in YAML where that is simple, cut to 80 characters."""
    if isinstance(value, list):
        value = [asdict(item) if is_dataclass(item) and not isinstance(item, type) else item for item in value]
    text = {None: "null", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else None
    text = text if text is not None else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def value_at(config: Any, key: str) -> Any:
    """Return the value at a dotted key; a number is the index in a list."""
    for part in key.split("."):
        config = config[int(part)] if isinstance(config, list) else getattr(config, part)
    return config


def problem(config: Any, key: str, message: str, fix: str) -> Problem:
    """Return the Problem of the value that `config` has at `key`."""
    return Problem(key=key, value=value_at(config, key), message=message, fix=fix)
