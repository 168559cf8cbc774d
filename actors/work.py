"""What a rollout worker has to do, and the rest of the system as it sees it."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from actors.engine import Applied
from r1ray.ledger.records import Lease
from r1ray.types import PromptTask, RolloutGroup, Sampling


def seed_of(prompt: PromptTask, seed: int) -> int:
    """The seed of a prompt's first completion, from its place and that of its source: the same whoever answers it.

    The i-th completion has this seed plus i.
    """
    name = f"{seed}/{prompt.task}/{prompt.index}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=4).digest(), "little") >> 1


class Prompts(Protocol):
    def task_at(self, index: int) -> PromptTask: ...


class Services(Protocol):
    """The rest of the system as this worker sees it. Each call blocks at most its own deadline."""

    def lease(self, worker_id: str, version: int, groups: int) -> list[Lease]:
        """Prompts to answer; waits a short while for some, so an empty list means "ask again"."""
        ...

    def serving(self, worker_id: str, version: int) -> None:
        """This worker serves policy `version` from now on. Does not wait; `lease` says it again."""
        ...

    def deliver(self, groups: list[bytes]) -> None:
        """Have the groups scored and stored. Raises InfrastructureError where that is not certain."""
        ...

    def fail(self, group_id: str, reason: str) -> None:
        """The prompt of `group_id` cannot be answered."""
        ...


@dataclass(slots=True)
class Work:
    """One request in the engine: a leased group, or an evaluation prompt with a future."""

    prompt: PromptTask
    sampling: Sampling
    leased_at: float
    submitted_at: float
    group_id: str
    n: int  # completions
    result: Future[RolloutGroup] | None  # evaluation only


@dataclass(slots=True)
class Transfer:
    version: int
    deadline: float
    result: Future[Applied]
