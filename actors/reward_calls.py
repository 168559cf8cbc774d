"""Size and timeout of the calls of reward workers."""

from __future__ import annotations

import math
from collections import deque

from r1ray.config.schema import Config
from r1ray.rewards.registry import longest_answer_s, longest_program_s
from r1ray.rewards.scorer import ASK_LANE
from r1ray.types import RolloutGroup

COMPLETIONS_A_CALL = ASK_LANE
"""At most, but always one group: a repeated call should repeat little, but a call should keep all lanes busy."""


def senders(config: Config) -> int:
    """Concurrent calls of reward workers of one rollout worker, so that a slow verification delays no other."""
    return 1 if config.run.deterministic else 4


def for_one_call(outbox: deque[RolloutGroup], *, take_all: bool) -> list[RolloutGroup]:
    """Groups for one call, taken off the outbox, which is not empty; all of them if `take_all`."""
    taken = [outbox.popleft()]
    completions = len(taken[0].completions)
    while outbox and (take_all or completions + len(outbox[0].completions) <= COMPLETIONS_A_CALL):
        taken.append(outbox.popleft())
        completions += len(taken[-1].completions)
    return taken


def scoring_timeout_s(config: Config, completions: int) -> float:
    """Timeout in seconds of a call with so many completions.

    The worst case of a reward worker with one processor: each completion is a program that runs out of time, one after
    the other, behind earlier calls of other senders; and each needs a model, in rounds of ASK_LANE requests. It may be
    long: a reward worker that died is noticed without it, and one that hangs by its health check.
    """
    calls = math.ceil(senders(config) * config.rollout.workers / config.reward_worker.workers)
    waiting = calls * completions
    rounds = math.ceil(waiting / ASK_LANE)
    verdict_s = max(config.reward_worker.timeout_s, longest_program_s(config.rewards))
    return waiting * verdict_s + rounds * longest_answer_s(config.rewards)
