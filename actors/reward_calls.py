"""How long a call of a reward worker may take, and how much goes into one."""

from __future__ import annotations

import math
from collections import deque

from r1ray.config.schema import Config
from r1ray.rewards.registry import longest_answer_s, longest_program_s
from r1ray.rewards.scorer import ASK_LANE
from r1ray.types import RolloutGroup

COMPLETIONS_A_CALL = ASK_LANE
"""At most, but a whole group at least: a call that is repeated should repeat little, and one should keep its lanes busy."""


def senders(config: Config) -> int:
    """How many calls of reward workers a rollout worker has under way, so that slow verification of one delays no other."""
    return 1 if config.run.deterministic else 4


def for_one_call(outbox: deque[RolloutGroup], *, whole: bool) -> list[RolloutGroup]:
    """Groups for one call, taken off the outbox, which is not empty; all of them if `whole`."""
    taken = [outbox.popleft()]
    completions = len(taken[0].completions)
    while outbox and (whole or completions + len(outbox[0].completions) <= COMPLETIONS_A_CALL):
        taken.append(outbox.popleft())
        completions += len(taken[-1].completions)
    return taken


def scoring_timeout_s(config: Config, completions: int) -> float:
    """Seconds after which a call with so many completions is not worth waiting for any longer.

    The worst case of a reward worker with one processor: each completion is a program that runs out of time, one after the
    other, behind the calls that other senders made before; and each needs a model, in rounds of as many as are asked at once.
    It is long. That a reward worker died is known without it, and that it hangs its health check finds.
    """
    calls = math.ceil(senders(config) * config.rollout.workers / config.reward_worker.workers)
    waiting = calls * completions
    rounds = math.ceil(waiting / ASK_LANE)
    verdict_s = max(config.reward_worker.timeout_s, longest_program_s(config.rewards))
    return waiting * verdict_s + rounds * longest_answer_s(config.rewards)
