"""The reward worker: scores whole groups and stores them in the ledger before it answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from r1ray.codec import pack_scored, unpack_rollout
from r1ray.config.schema import Config

Put = Callable[[list[bytes], bool], list[str]]


class RewardWorker:
    """`put(payloads, atomic)` stores scored groups and raises where that is not certain."""

    def __init__(self, config: Config, put: Put) -> None:
        sources: Mapping[str, list[str] | None] = {
            s.name: s.rewards for s in (*config.data.train, *config.data.evaluation)
        }
        if config.reward_worker.num_gpus == 0:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides only what it has given to others
        from r1ray.rewards.scorer import Scorer

        self._scorer = Scorer(config.rewards, config.reward_worker, source_rewards=sources)
        self._put = put
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="score")

    def score(self, groups: list[bytes]) -> list[bytes]:
        """Score packed rollout groups into packed scored groups, in order."""
        return list(self._pool.map(self._score_one, groups))

    def score_and_put(self, groups: list[bytes], atomic: bool) -> list[str]:
        """Score groups and store each as soon as it is scored (`atomic`: all together); returns the outcomes by name."""
        if atomic:
            return self._put(self.score(groups), True)
        if len(groups) == 1:
            return self._put([self._score_one(groups[0])], False)
        return [
            o for outcome in self._pool.map(lambda g: self._put([self._score_one(g)], False), groups) for o in outcome
        ]

    def _score_one(self, group: bytes) -> bytes:
        return pack_scored(self._scorer.score(unpack_rollout(group)))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._scorer.close()
