"""Groups in, scored groups out: every reward of a sample, summed by weight, failures by name.

Sample --reward--> float ----------------------------.
               |-> Call --lane of threads--> Pool ----+
               `-> Ask ---lane of threads-------------+--> Score(reward, parts, error)
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from r1ray.config.schema import RewardConfig, RewardWorkerConfig
from r1ray.errors import ConfigError, DataError, InfrastructureError, ProcessDied, VerifierCrash
from r1ray.rewards.base import Ask, Call, Judgement, Reward, Sample
from r1ray.rewards.execution.sandbox import Sandbox
from r1ray.rewards.registry import build
from r1ray.rewards.workers.pool import Pool
from r1ray.types import RolloutGroup, Score, ScoredGroup

_VERIFY_LANE = 48
"""Verifications at once. Most are over in milliseconds; so many must hang at once before any other has to wait."""

ASK_LANE = 64
"""Questions to models and endpoints at once; more than any batch of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One reward as a source of prompts uses it."""

    key: str  # its name in Score.parts
    weight: float
    reward: Reward


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What became of one part of one sample."""

    judgement: Judgement | DataError | InfrastructureError
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A sample's score. Producer: Pending."""

    score: Score
    notes: dict[str, str]  # by part, what its reward had to say besides, such as which test failed
    seconds: float  # that judging took, waiting in line not counted
    outage: InfrastructureError | None = None  # a part had no verdict for no fault of the sample: worth judging again


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A sample that is being judged. Producer: Scorer.begin."""

    parts: tuple[_Part, ...]
    outcomes: tuple[_Outcome | Future[_Outcome], ...]

    def result(self) -> Judged:
        """Waits for what processes have to judge; each of their calls ends within its limit."""
        parts: dict[str, float] = {}
        notes: dict[str, str] = {}
        errors: list[str] = []
        outage: InfrastructureError | None = None
        seconds = 0.0
        for part, outcome in zip(self.parts, self.outcomes, strict=True):
            known = outcome if isinstance(outcome, _Outcome) else _result(outcome)
            seconds += known.seconds
            if not isinstance(known.judgement, Judgement):
                errors.append(f"{type(known.judgement).__name__}: {part.key}: {known.judgement}")
                if isinstance(known.judgement, InfrastructureError):
                    outage = outage or known.judgement
                continue
            parts[part.key] = known.judgement.value
            if known.judgement.why:
                notes[part.key] = known.judgement.why
        reward = 0.0 if errors else math.fsum(p.weight * parts[p.key] for p in self.parts)
        score = Score(reward=reward, parts=parts, error="; ".join(errors) or None)
        return Judged(score=score, notes=notes, seconds=seconds, outage=outage)


class Scorer:
    """Judges samples by the configured rewards. Thread-safe.

    Example: rewards accuracy (weight 1.0) and format (0.5) on a right answer in the wrong form give
    Score(reward=1.0, parts={"accuracy": 1.0, "format": 0.0}, error=None). A sample that a verifier could not judge has an
    error such as "VerifierTimeout: accuracy: no verdict within 5 s ...", the reward 0.0, and no part of that name.
    """

    def __init__(
        self,
        rewards: Sequence[RewardConfig],
        worker: RewardWorkerConfig,
        source_rewards: Mapping[str, Sequence[str] | None] | None = None,
        processors: int | None = None,
    ) -> None:
        """`source_rewards`: source -> names out of `rewards`; None for all. `processors`: to use; None for all there are.

        Raises ConfigError for rewards that cannot be built.
        """
        processors = processors or len(os.sched_getaffinity(0))
        self._timeout_s = worker.timeout_s
        self._sandbox = Sandbox(worker.sandbox)
        every = [(config, build(config.name, config.params)) for config in rewards]
        self._default = _chosen(every, None, "rewards")
        self._by_source = {name: _chosen(every, names, name) for name, names in (source_rewards or {}).items()}
        self._pool = Pool(sorted({name for _, reward in every for name in reward.preload}), processors)
        self._lanes = {
            "verify": ThreadPoolExecutor(_VERIFY_LANE, thread_name_prefix="verify"),
            "program": ThreadPoolExecutor(processors, thread_name_prefix="program"),
            "ask": ThreadPoolExecutor(ASK_LANE, thread_name_prefix="ask"),
        }

    @property
    def part_names(self) -> tuple[str, ...]:
        """The keys of `Score.parts` for samples of no particular source."""
        return tuple(part.key for part in self._default)

    def check(self) -> None:
        """Try what judging will need on this machine. Raises ConfigError, with what to do, where something is missing."""
        parts = [part for source in (self._default, *self._by_source.values()) for part in source]
        if any(part.reward.sandboxed for part in parts):
            self._sandbox.check()
        if any(part.reward.preload for part in parts):
            self._pool.start()
        for part in parts:
            part.reward.check()

    def score(self, group: RolloutGroup) -> ScoredGroup:
        """Judge every completion of a group.

        Raises InfrastructureError where a part of one has no verdict for no fault of its own, such as an endpoint that is
        down: the prompt must not be blamed for it.
        """
        pending = [self.begin(Sample.of(group, i)) for i in range(len(group.completions))]
        judged = [p.result() for p in pending]
        for one in judged:
            if one.outage is not None:
                told = f"group {group.group_id} could not be judged: {one.score.error}"
                raise InfrastructureError(told) from one.outage
        return ScoredGroup(rollout=group, scores=tuple(one.score for one in judged))

    def begin(self, sample: Sample) -> Pending:
        """Begin to judge a sample: what can be told at once is told, calls go to processes."""
        parts = self._by_source.get(sample.task, self._default)
        return Pending(parts=parts, outcomes=tuple(self._begin(part.reward, sample) for part in parts))

    def close(self) -> None:
        """Kill the processes, ask nothing more. What was asked gets its answer; whatever else is left ends in a ProcessDied."""
        self._pool.close()
        for name, lane in self._lanes.items():
            # Questions cost time and money; calls that wait in line meet a closed pool, and end at once.
            lane.shutdown(wait=False, cancel_futures=name == "ask")

    def _begin(self, reward: Reward, sample: Sample) -> _Outcome | Future[_Outcome]:
        began = time.perf_counter()
        outcome: Judgement | DataError | InfrastructureError
        try:
            verdict = reward(sample)
            if isinstance(verdict, Call):
                return self._lanes[verdict.lane].submit(self._call, verdict)
            if isinstance(verdict, Ask):
                return self._lanes["ask"].submit(_answer, verdict)
            outcome = Judgement(value=verdict)
        except Exception as e:
            outcome = _named(e)
        return _Outcome(judgement=outcome, seconds=time.perf_counter() - began)

    def _call(self, call: Call) -> _Outcome:
        limit_s = max(self._timeout_s, call.limit_s)
        if call.lane == "program":
            call = replace(call, args={**call.args, "sandbox": self._sandbox.kind, "limit_s": limit_s})
        began = time.perf_counter()
        outcome: Judgement | DataError | InfrastructureError
        try:
            outcome = self._pool.call(call, limit_s)
            if call.then is not None:
                outcome = replace(outcome, value=call.then(outcome.value))
        except Exception as e:
            outcome = _named(e)
        return _Outcome(judgement=outcome, seconds=time.perf_counter() - began)


def _result(outcome: Future[_Outcome]) -> _Outcome:
    try:
        return outcome.result()
    except CancelledError:
        died = ProcessDied("the rewards were closed before this was asked")
        return _Outcome(judgement=died, seconds=0.0)


def _answer(ask: Ask) -> _Outcome:
    began = time.perf_counter()
    outcome: Judgement | DataError | InfrastructureError
    try:
        outcome = Judgement(value=ask.function())
    except Exception as e:
        outcome = _named(e)
    return _Outcome(judgement=outcome, seconds=time.perf_counter() - began)


def _named(error: Exception) -> DataError | InfrastructureError:
    """What a sample's error is called: whatever is raised is that sample's alone, and must not take others along.

    No name of ours have, for instance, a whole number that no message can carry, or a model's GPU without memory.
    """
    if isinstance(error, DataError | InfrastructureError):
        return error
    return VerifierCrash(f"{type(error).__name__}: {error}")


def _chosen(every: Sequence[tuple[RewardConfig, Reward]], names: Sequence[str] | None, owner: str) -> tuple[_Part, ...]:
    """The rewards of one source, under their names in the configuration, the same in every source and in the metrics."""
    known = Counter(config.name for config, _ in every)
    twice = [name for name, count in known.items() if count > 1]
    if twice:
        raise ConfigError(
            f"two rewards are called {twice[0]}: tell them apart, e.g. {twice[0]}/first and {twice[0]}/second"
        )
    for name in names or ():
        if name not in known:
            raise ConfigError(
                f"the source {owner} uses the reward {name!r}; `rewards` has {', '.join(known) or 'none'}"
            )
    used = [(config, reward) for config, reward in every if names is None or config.name in names]
    return tuple(_Part(key=config.name, weight=config.weight, reward=reward) for config, reward in used)
