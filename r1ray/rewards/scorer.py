"""Scorer: groups in, scored groups out. The rewards of a sample are summed by weight; failures have names.

Sample --reward--> float ----------------------------.
               |-> Call --lane of threads--> Pool ----+
               `-> Ask ---lane of threads-------------+--> Score(reward, parts, error)
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from r1ray.config.schema import RewardConfig, RewardWorkerConfig
from r1ray.errors import ConfigError, DataError, InfrastructureError, ProcessDied, VerifierCrash, VerifierTimeout
from r1ray.rewards import failures
from r1ray.rewards.base import Ask, Call, Judgement, Reward, Sample
from r1ray.rewards.execution.programs import killed_for
from r1ray.rewards.execution.sandbox import Sandbox
from r1ray.rewards.registry import build
from r1ray.rewards.workers.pool import Pool
from r1ray.telemetry.catalogue import SANDBOX_KILLS
from r1ray.telemetry.recorder import SILENT, Recorder
from r1ray.types import SCORED_S, RolloutGroup, Score, ScoredGroup

_VERIFY_LANE = 256
"""Verifications under way. Most take milliseconds, and no more of the long ones run at once than there
are processors; only if this many hang at once does another one have to wait.
"""

ASK_LANE = 64
"""Questions to models and endpoints at once; at least the largest batch of a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One reward as a data source uses it."""

    key: str  # its name in Score.parts
    weight: float
    reward: Reward


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """The result of one part of one sample."""

    judgement: Judgement | DataError | InfrastructureError
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A sample's score. Producer: Pending."""

    score: Score
    notes: dict[str, str]  # part -> what its reward reports besides the value, such as which test failed
    seconds: float  # spent on scoring, without time in queues
    outage: InfrastructureError | None = None  # a part failed for no fault of the sample: scoring again may help


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A sample that is being scored. Producer: Scorer.begin."""

    sample: Sample
    parts: tuple[_Part, ...]
    outcomes: tuple[_Outcome | Future[_Outcome], ...]

    def result(self) -> Judged:
        """Wait for worker processes and models; each call to them ends within its limit."""
        parts: dict[str, float] = {}
        notes: dict[str, str] = {}
        errors: list[str] = []
        error_kind: str | None = None
        outage: InfrastructureError | None = None
        seconds = 0.0
        for part, outcome in zip(self.parts, self.outcomes, strict=True):
            known = outcome if isinstance(outcome, _Outcome) else _result(outcome)
            seconds += known.seconds
            if not isinstance(known.judgement, Judgement):
                errors.append(failures.message(known.judgement, part.key))
                error_kind = error_kind or failures.kind(known.judgement, part.key, self.sample)
                if isinstance(known.judgement, InfrastructureError):
                    outage = outage or known.judgement
                continue
            parts[part.key] = known.judgement.value
            if known.judgement.why:
                notes[part.key] = known.judgement.why
        reward = 0.0 if errors else math.fsum(p.weight * parts[p.key] for p in self.parts)
        score = Score(reward=reward, parts=parts, error="; ".join(errors) or None, error_kind=error_kind)
        return Judged(score=score, notes=notes, seconds=seconds, outage=outage)


class Scorer:
    """Scores samples with the configured rewards. Thread-safe.

    Example: rewards accuracy (weight 1.0) and format (0.5) on a right answer in the wrong form give
    Score(reward=1.0, parts={"accuracy": 1.0, "format": 0.0}, error=None). If a verifier could not
    judge a sample, its score has an error such as "VerifierTimeout: accuracy: no verdict within 5 s
    ...", the reward 0.0, and no part of that name.
    """

    def __init__(
        self,
        rewards: Sequence[RewardConfig],
        worker: RewardWorkerConfig,
        source_rewards: Mapping[str, Sequence[str] | None] | None = None,
        processors: int | None = None,
        recorder: Recorder = SILENT,
    ) -> None:
        """`source_rewards`: source -> names out of `rewards`, or None for all. `processors`: number
        to use, or None for all.

        Raises ConfigError for rewards that cannot be built.
        """
        processors = processors or len(os.sched_getaffinity(0))
        self._timeout_s = worker.timeout_s
        self._recorder = recorder
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
        """The keys of `Score.parts` for samples without a source of their own."""
        return tuple(part.key for part in self._default)

    def check(self) -> None:
        """Try what scoring needs on this machine. Raises ConfigError, with how to fix it, if something is missing."""
        parts = [part for source in (self._default, *self._by_source.values()) for part in source]
        if any(part.reward.sandboxed for part in parts):
            self._sandbox.check()
        if any(part.reward.preload for part in parts):
            self._pool.start()
        for part in parts:
            part.reward.check()

    def score(self, group: RolloutGroup) -> ScoredGroup:
        """Score every completion of a group.

        Raises InfrastructureError if a part failed for no fault of the sample, such as an endpoint
        that is down: the prompt must not be blamed for it.
        """
        began = time.perf_counter()
        pending = [self.begin(Sample.of(group, i)) for i in range(len(group.completions))]
        judged = [p.result() for p in pending]
        for one in judged:
            if one.outage is not None:
                raise InfrastructureError(
                    f"group {group.group_id} could not be scored: {one.score.error}"
                ) from one.outage
        timings = {**group.timings, SCORED_S: time.perf_counter() - began}
        return ScoredGroup(rollout=replace(group, timings=timings), scores=tuple(one.score for one in judged))

    def begin(self, sample: Sample) -> Pending:
        """Start scoring a sample: cheap rewards are computed at once, calls go to worker processes."""
        parts = self._by_source.get(sample.task, self._default)
        outcomes = tuple(self._begin(part.reward, sample) for part in parts)
        return Pending(sample=sample, parts=parts, outcomes=outcomes)

    def close(self) -> None:
        """Kill the processes and send nothing more. Requests under way finish; all other scoring
        ends in a ProcessDied.
        """
        self._pool.close()
        for name, lane in self._lanes.items():
            # Queued requests would cost time and money; queued calls meet a closed pool, and end at
            # once.
            lane.shutdown(wait=False, cancel_futures=name == "ask")

    def _begin(self, reward: Reward, sample: Sample) -> _Outcome | Future[_Outcome]:
        began = time.perf_counter()
        try:
            verdict = reward(sample)
        except Exception as e:
            return _Outcome(judgement=failures.named(e), seconds=time.perf_counter() - began)
        if isinstance(verdict, Call):
            return self._lanes[verdict.lane].submit(_timed, lambda: self._call(verdict))
        if isinstance(verdict, Ask):
            return self._lanes["ask"].submit(_timed, lambda: Judgement(value=verdict.function()))
        return _Outcome(judgement=Judgement(value=verdict), seconds=time.perf_counter() - began)

    def _call(self, call: Call) -> Judgement:
        limit_s = max(self._timeout_s, call.limit_s)
        if call.lane == "program":
            call = replace(call, args={**call.args, "sandbox": self._sandbox.kind, "limit_s": limit_s})
        try:
            judgement = self._pool.call(call, limit_s)
        except VerifierTimeout:
            self._recorder.add(SANDBOX_KILLS, reason="timeout")
            raise
        except VerifierCrash:
            self._recorder.add(SANDBOX_KILLS, reason="crash")
            raise
        if call.lane == "program" and (killed := killed_for(judgement.why)):
            self._recorder.add(SANDBOX_KILLS, reason=killed)
        return judgement if call.then is None else replace(judgement, value=call.then(judgement.value))


def _timed(judge: Callable[[], Judgement]) -> _Outcome:
    began = time.perf_counter()
    try:
        judgement: Judgement | DataError | InfrastructureError = judge()
    except Exception as e:  # one sample's failure must not end the others
        judgement = failures.named(e)
    return _Outcome(judgement=judgement, seconds=time.perf_counter() - began)


def _result(outcome: Future[_Outcome]) -> _Outcome:
    try:
        return outcome.result()
    except CancelledError:
        return _Outcome(judgement=ProcessDied("the scorer was closed before this was sent"), seconds=0.0)


def _chosen(every: Sequence[tuple[RewardConfig, Reward]], names: Sequence[str] | None, owner: str) -> tuple[_Part, ...]:
    """The rewards of one source, under their names in the configuration, which metrics use too."""
    known = Counter(config.name for config, _ in every)
    twice = [name for name, count in known.items() if count > 1]
    if twice:
        raise ConfigError(
            f"two rewards are called {twice[0]}: give them labels, e.g. {twice[0]}/first and {twice[0]}/second"
        )
    for name in names or ():
        if name not in known:
            raise ConfigError(
                f"the source {owner} uses the reward {name!r}; `rewards` has {', '.join(known) or 'none'}"
            )
    used = [(config, reward) for config, reward in every if names is None or config.name in names]
    return tuple(_Part(key=config.name, weight=config.weight, reward=reward) for config, reward in used)
