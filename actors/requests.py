"""What a rollout worker has its engine do, and the interfaces through which it reaches the rest of the system."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Protocol

from r1ray.config.lengths import completion_limit
from r1ray.config.schema import Config
from r1ray.ledger.records import Lease
from r1ray.types import GENERATED_S, QUEUED_S, Completion, PromptTask, RolloutGroup, Sampling


def seed_of(prompt: PromptTask, seed: int) -> int:
    """The seed of a prompt's first completion, from its source and its index: every worker computes the same.

    The i-th completion has this seed plus i.
    """
    name = f"{seed}/{prompt.task}/{prompt.index}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=4).digest(), "little") >> 1


class Prompts(Protocol):
    """The training prompts."""

    def task_at(self, index: int) -> PromptTask:
        """The prompt of an index. Raises DataError."""
        ...


class Services(Protocol):
    """The queue and the reward workers. Each call blocks at most for its own deadline."""

    def lease(self, worker_id: str, version: int, groups: int, held: list[str]) -> list[Lease]:
        """Prompts to answer; waits a short while for some, so repeat the call after an empty list.

        `held`: ids of all groups that were leased to this worker and whose `deliver` or `fail` has not returned. Its
        other leases count as not received and are returned again.
        """
        ...

    def serving(self, worker_id: str, version: int) -> None:
        """Report that this worker serves policy `version` from now on. Does not wait; `lease` reports it again."""
        ...

    def deliver(self, groups: list[bytes]) -> None:
        """Have the groups scored and stored. Raises InfrastructureError if it is not certain that they are."""
        ...

    def fail(self, group_id: str, reason: str) -> None:
        """Report that the prompt of `group_id` cannot be answered."""
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

    def finished(self, completions: tuple[Completion, ...], worker_id: str) -> RolloutGroup:
        """The group with its completions."""
        timings = {QUEUED_S: self.submitted_at - self.leased_at, GENERATED_S: time.monotonic() - self.submitted_at}
        return RolloutGroup(
            group_id=self.group_id,
            prompt=self.prompt,
            completions=completions,
            sampling=self.sampling,
            worker_id=worker_id,
            timings=timings,
        )


def training_work(config: Config, lease: Lease, prompt: PromptTask) -> Work:
    """The group of a lease. In a deterministic run its seed depends on the run's seed and the index alone."""
    r, run = config.rollout, config.run
    seed = (run.seed * 1_000_003 + lease.index * r.group_size) % 2**31 if run.deterministic else None
    longest = completion_limit(config, lease.index)
    sampling = Sampling(temperature=r.temperature, top_p=r.top_p, max_new_tokens=longest, seed=seed)
    return Work(prompt, sampling, time.monotonic(), 0.0, lease.group_id, r.group_size, None)


def evaluation_works(
    prompts: Sequence[PromptTask], sampling: Sampling, n: int
) -> list[tuple[Work, Future[RolloutGroup]]]:
    """`n` completions of each prompt, with futures of the groups; a seed of `sampling` is varied by prompt."""
    now = time.monotonic()
    works = []
    for i, prompt in enumerate(prompts):
        seed = None if sampling.seed is None else seed_of(prompt, sampling.seed)
        result: Future[RolloutGroup] = Future()
        works.append((Work(prompt, replace(sampling, seed=seed), now, 0.0, f"eval-{now:.6f}-{i}", n, result), result))
    return works


def run_all(commands: Sequence[tuple[Callable[[], Any], Future[Any]]]) -> None:
    """Run commands and give their results, or their errors, to those who wait for them."""
    for command, result in commands:
        try:
            result.set_result(command())
        except Exception as e:  # for the caller, which waits for it
            result.set_exception(e)
