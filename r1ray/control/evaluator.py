"""Evaluations on the rollout workers during training, in parts that go to the workers that serve."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from r1ray.codec import unpack_scored
from r1ray.config.lengths import longest_completion
from r1ray.config.schema import Config
from r1ray.control.handles import Handle, RolloutApi
from r1ray.control.work_dispatcher import WorkDispatcher
from r1ray.rewards.answers.canonical import verifier_of
from r1ray.rewards.answers.summary import summarise
from r1ray.run.metrics import transcript_row
from r1ray.types import Sampling, ScoredGroup

PART = 128
"""Problems of one call."""
AT_ONCE = 8
"""Concurrent calls of one evaluation per worker: they keep its engine full, and are lost if it dies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One call to one worker: problems [start, stop) of a source, sampled or greedy."""

    source: str
    start: int
    stop: int
    greedy: bool


@dataclass(slots=True)
class Evaluation:
    """A running evaluation of the policy of `step`."""

    step: int
    parts: WorkDispatcher[Part] | None = None  # None until a worker has reported the number of problems
    groups: dict[Part, list[ScoredGroup]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)


class Evaluator:
    """`sizes()` returns the number of problems by source, empty until a worker is ready; `on_row` gets the figures of
    each finished source, `on_transcript` the responses to its first problems."""

    def __init__(
        self,
        config: Config,
        sizes: Callable[[], Mapping[str, int]],
        on_row: Callable[[dict[str, Any]], None],
        on_transcript: Callable[[dict[str, Any]], None],
    ) -> None:
        self._config = config.evaluation
        self._steps = config.run.steps
        self._verifiers = {s.name: verifier_of(config.rewards, s) for s in config.data.evaluation}
        self._max_new_tokens = config.evaluation.max_new_tokens or longest_completion(config)
        self._deadline_s = config.deadlines.evaluation_s
        self._sizes = sizes
        self._on_row = on_row
        self._on_transcript = on_transcript
        self._transcripts = config.logging.transcripts_per_evaluation
        self._running: list[Evaluation] = []

    @property
    def busy(self) -> bool:
        """Whether an evaluation is running."""
        return bool(self._running)

    def due(self, step: int) -> bool:
        """Whether the policy of `step` is to be evaluated during training."""
        return self._config.every_steps > 0 and 0 < step < self._steps and step % self._config.every_steps == 0

    def start(self, step: int) -> None:
        """Evaluate the policy that is served now as that of `step`, unless such an evaluation is running."""
        if any(e.step == step for e in self._running):
            return
        if self._verifiers:
            self._running.append(Evaluation(step))

    def back_to(self, step: int) -> None:
        """Training continues from `step`: cancel evaluations of later policies."""
        self._running = [e for e in self._running if e.step <= step]

    def tick(self, serving: Mapping[str, Handle[RolloutApi]]) -> None:
        """Collect finished parts and dispatch the others. Raises RetryBudgetExhausted if a part fails repeatedly."""
        for evaluation in list(self._running):
            if evaluation.parts is None:
                if not self._sizes():
                    continue
                evaluation.parts = WorkDispatcher(self._cut(), start=self._start_part, names=_name, at_once=AT_ONCE)
            for part, groups in evaluation.parts.tick(serving):
                evaluation.groups[part] = [unpack_scored(g) for g in groups]
            if not evaluation.parts.unfinished:
                self._running.remove(evaluation)
                self._report(evaluation.step, evaluation.groups, time.monotonic() - evaluation.began)

    def _cut(self) -> list[Part]:
        kinds = [False, True] if self._config.greedy else [False]
        return [
            Part(source=source, start=start, stop=min(start + PART, size), greedy=greedy)
            for source, size in self._sizes().items()
            for greedy in kinds
            for start in range(0, size, PART)
        ]

    def _start_part(self, worker: Handle[RolloutApi], part: Part) -> Future[list[bytes]]:
        sampling = Sampling(
            temperature=0.0 if part.greedy else self._config.temperature,
            top_p=1.0 if part.greedy else self._config.top_p,
            max_new_tokens=self._max_new_tokens,
        )
        n = 1 if part.greedy else self._config.samples
        return worker.start(RolloutApi.evaluate, part.source, part.start, part.stop, sampling, n, self._deadline_s)

    def _report(self, step: int, done: Mapping[Part, list[ScoredGroup]], seconds: float) -> None:
        in_order = sorted(done, key=lambda part: part.start)
        for source in self._sizes():
            groups: dict[bool, list[ScoredGroup]] = {False: [], True: []}
            for part in in_order:
                if part.source == source:
                    groups[part.greedy] += done[part]
            row = {"step": step, "source": source, **summarise(groups[False], groups[True], self._verifiers[source])}
            self._on_row({**row, "seconds": seconds})
            for group in (groups[False] or groups[True])[: self._transcripts]:
                self._on_transcript(transcript_row(step, 0, group))


def _name(part: Part) -> str:
    return f"evaluating {part.source} [{part.start}, {part.stop})"
