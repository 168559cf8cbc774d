"""Errors of one learner rank, raised on every rank, so that none waits for another in a collective."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from learner.files import no_room
from r1ray.errors import ConfigError, DiskFull, InfrastructureError, IntegrityError
from r1ray.util.files import is_disk_full

if TYPE_CHECKING:  # torch
    from learner.group import Ranks

R = TypeVar("R")

_NAMED = {kind.__name__: kind for kind in (ConfigError, IntegrityError, InfrastructureError)}
"""Errors that every rank raises as they are."""


def attempt(work: Callable[[], R]) -> tuple[BaseException | None, dict[str, Any]]:
    """Run `work`; (its error, the outcome as JSON). Errors that are bugs pass."""
    try:
        return None, {"done": work()}
    except (OSError, *_NAMED.values()) as e:
        if isinstance(e, DiskFull) or is_disk_full(e):
            return e, {"error": str(e), "kind": "full"}
        return e, {"error": str(e), "kind": next((n for n, kind in _NAMED.items() if isinstance(e, kind)), "")}


def by_rank_0(ranks: Ranks, folder: Path, work: Callable[[], R]) -> R:
    """The result of `work` on rank 0, which JSON can hold, on every rank. A collective.

    If it raises there, every rank raises. `folder`: what `work` reads or writes, for the message.
    """
    error, outcome = attempt(work) if ranks.rank == 0 else (None, {})
    outcome = ranks.broadcast(outcome)
    if error is not None and outcome["kind"] != "full":
        raise error
    raise_first(folder, [outcome])
    result: R = outcome["done"]
    return result


def raise_first(folder: Path, outcomes: Sequence[Mapping[str, Any]]) -> None:
    """Raise the error that the first of these ranks reports, a full disk before all others."""
    failed = [(rank, o) for rank, o in enumerate(outcomes) if "error" in o]
    for rank, outcome in sorted(failed, key=lambda each: each[1]["kind"] != "full"):
        message, kind = outcome["error"], outcome["kind"]
        if kind == "full":
            raise DiskFull(message if message.startswith("no room") else no_room(folder, message))
        if kind:
            raise _NAMED[kind](message)
        raise InfrastructureError(f"{folder}: learner rank {rank}: {message}")
