"""Reward worker: scores groups and stores them in the ledger before it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from r1ray.codec import pack_scored, unpack_rollout
from r1ray.config.schema import Config
from r1ray.telemetry.catalogue import SCORED_GROUPS, SCORING_SECONDS
from r1ray.telemetry.logs import at
from r1ray.telemetry.recorder import SILENT, Recorder
from r1ray.types import SCORED_S

R = TypeVar("R")
Put = Callable[[list[bytes], bool], list[str]]


class RewardWorker:
    """`put(payloads, atomic)` stores scored groups and raises if it is not certain that they are stored."""

    def __init__(self, config: Config, put: Put, recorder: Recorder = SILENT) -> None:
        sources: Mapping[str, list[str] | None] = {
            s.name: s.rewards for s in (*config.data.train, *config.data.evaluation)
        }
        from r1ray.rewards.scorer import Scorer

        self._scorer = Scorer(config.rewards, config.reward_worker, source_rewards=sources, recorder=recorder)
        self._recorder = recorder
        self._put = put
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="score")

    def score(self, groups: list[bytes]) -> list[bytes]:
        """Score packed rollout groups into packed scored groups, in order.

        Raises InfrastructureError if one could not be judged for no fault of its own; the call may be repeated.
        """
        return self._each(self._score_one, groups)

    def score_and_put(self, groups: list[bytes], atomic: bool) -> list[str]:
        """Score groups and store each as soon as it is scored (`atomic`: all together); returns the outcomes by name.

        Raises as `score` does, after the others are stored.
        """
        if atomic:
            return self._put(self.score(groups), True)
        if len(groups) == 1:
            return self._put([self._score_one(groups[0])], False)
        stored = self._each(lambda g: self._put([self._score_one(g)], False), groups)
        return [outcome for outcomes in stored for outcome in outcomes]

    def _each(self, work: Callable[[bytes], R], groups: list[bytes]) -> list[R]:
        """`work` on every group. All end before the first failure is raised, so a repeated call meets none."""
        running = [self._pool.submit(work, group) for group in groups]
        wait(running)  # each verification has its own limit
        return [done.result() for done in running]

    def _score_one(self, group: bytes) -> bytes:
        rollout = unpack_rollout(group)
        at(version=rollout.max_policy_version)
        scored = self._scorer.score(rollout)
        self._recorder.add(SCORED_GROUPS)
        self._recorder.observe(SCORING_SECONDS, scored.rollout.timings[SCORED_S])
        return pack_scored(scored)

    def close(self) -> None:
        """Stop scoring; calls in progress fail."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._scorer.close()
