"""Sampling job: k scored samples of every prompt of some sources, one shard per part of the prompts.

    parts without a shard --> rollout workers --> reward workers --> shard, complete or absent

The shards are the only state: a part is done if and only if its shard exists.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1ray.codec import unpack_scored
from r1ray.config.schema import Config
from r1ray.control.calls import pause
from r1ray.control.commands import Commands
from r1ray.control.fleet import Fleet
from r1ray.control.handles import Handle, RolloutApi
from r1ray.control.managed_actors import RayManagedActors
from r1ray.control.outages import OutageTracker
from r1ray.control.stop import RunInterruptedError, Stop
from r1ray.control.work_dispatcher import WorkDispatcher
from r1ray.errors import ConfigError, DiskFull
from r1ray.rewards.answers.answer import opening
from r1ray.rewards.answers.canonical import canonical_answer
from r1ray.rewards.answers.choice import options
from r1ray.run.folder import RunFolder
from r1ray.run.metrics import MetricsWriter
from r1ray.sampling.failed_scores import FailedScores
from r1ray.sampling.store import Part, SampleRow, missing_parts, write_shard
from r1ray.types import Sampling, ScoredGroup
from r1ray.util.files import is_disk_full

TICK_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The samples to draw from one source."""

    source: str
    samples: int  # k, per prompt
    sampling: Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class JobParts:
    """The parts of a job, built by the composition root."""

    fleet: Fleet
    managed: RayManagedActors
    folder: RunFolder
    samples: Path  # folder of the shards
    writer: MetricsWriter
    stop: Stop
    commands: Commands
    tell: Callable[[str, int, int, dict[str, Any]], None]  # state, prompts done, prompts in all, figures


class SamplingJob:
    """Samples until every prompt has its samples, or a requested stop is due."""

    def __init__(self, config: Config, wanted: Sequence[Wanted], parts: JobParts) -> None:
        self._config = config
        self._wanted = {w.source: w for w in wanted}
        self._parts = parts
        self._outages = OutageTracker(config.recovery.outage_timeout_s, tick=self._tick, on_pause=lambda reason: None)
        self._failed_scores = FailedScores(parts.writer.event)
        self._running = 0
        self._prompts = self._done = self._tokens = 0
        self._began = time.monotonic()

    def run(self) -> bool:
        """Sample the missing parts. Returns True if all are stored, False after a requested stop. Raises R1RayError."""
        self._tell("starting")
        try:
            sizes = self._sizes()
            self._begin(sizes)
            missing = missing_parts(self._parts.samples, parts_of(sizes, self._config.sampling.prompts_per_part))
            self._done = self._prompts - sum(part.stop - part.start for part in missing)
            self._tell("running")
            self._sample(WorkDispatcher(missing, start=self._start_part, names=_name, at_once=self._at_once()))
        except RunInterruptedError as e:
            self._parts.writer.event("interrupted", reason=str(e))
            return False
        seconds = time.monotonic() - self._began
        self._parts.writer.event("sampled", tokens=self._tokens, seconds=seconds, tokens_per_s=self._tokens / seconds)
        return True

    def _sizes(self) -> dict[str, int]:
        """Number of prompts by source; waits until a worker has counted them."""
        while not (sizes := self._parts.fleet.evaluation_sizes()):
            pause(TICK_S, self._tick)
        return {name: sizes[name] for name in self._wanted}

    def _begin(self, sizes: Mapping[str, int]) -> None:
        self._prompts = sum(sizes.values())
        if not self._prompts:
            raise ConfigError("the sources have no prompt to sample: see the reasons in events.jsonl (worker_ready)")
        self._parts.samples.mkdir(exist_ok=True)
        self._parts.writer.event(
            "sampling", prompts=sizes, samples={w.source: w.samples for w in self._wanted.values()}
        )
        self._began = time.monotonic()

    def _at_once(self) -> int:
        """Parts per worker that keep its engine full; 1 in a deterministic run, whose parts must not mix."""
        if self._config.run.deterministic:
            return 1
        return 1 + math.ceil(self._config.rollout.groups_in_engine / self._config.sampling.prompts_per_part)

    def _sample(self, dispatcher: WorkDispatcher[Part]) -> None:
        while dispatcher.unfinished:
            self._tick()
            for part, groups in dispatcher.tick(self._parts.fleet.alive(), hand_out=not self._parts.stop.requested):
                self._keep(part, [unpack_scored(group) for group in groups])
            self._running = dispatcher.running
            pause(TICK_S, self._tick)

    def _keep(self, part: Part, groups: Sequence[ScoredGroup]) -> None:
        rows = [row for group in groups for row in rows_of(group)]
        for group in groups:
            self._failed_scores.add(group.scores)
        self._outages.retry_until_recovered(f"writing {part.file_name}", lambda: self._write(part, rows), DiskFull)
        self._parts.managed.succeeded()
        self._done += part.stop - part.start
        self._tokens += sum(row.tokens for row in rows)
        self._tell("running")

    def _write(self, part: Part, rows: Sequence[SampleRow]) -> None:
        try:
            write_shard(self._parts.samples, part, rows)
        except OSError as e:
            if is_disk_full(e):
                raise DiskFull(f"no room for {part.file_name}: free space on its disk") from e
            raise

    def _start_part(self, worker: Handle[RolloutApi], part: Part) -> Future[list[bytes]]:
        wanted, deadline = self._wanted[part.source], self._config.deadlines.evaluation_s
        return worker.start(
            RolloutApi.evaluate, part.source, part.start, part.stop, wanted.sampling, wanted.samples, deadline
        )

    def _tick(self) -> None:
        self._parts.commands.tick(self._parts.fleet)
        self._parts.stop.check(unsaved=self._running > 0)
        self._parts.fleet.tick()
        self._parts.managed.tick()

    def _tell(self, state: str) -> None:
        seconds = max(1e-9, time.monotonic() - self._began)
        self._parts.tell(state, self._done, self._prompts, {"tokens_per_s": self._tokens / seconds})


def parts_of(sizes: Mapping[str, int], size: int) -> list[Part]:
    """Divide sources (name -> number of prompts) into parts of `size` prompts."""
    return [
        Part(source=source, start=start, stop=min(start + size, prompts))
        for source, prompts in sizes.items()
        for start in range(0, prompts, size)
    ]


def rows_of(group: ScoredGroup) -> list[SampleRow]:
    """The samples of a prompt as stored rows."""
    prompt = group.rollout.prompt
    opened = bool(opening(prompt.meta))
    rows = []
    for i, (completion, score) in enumerate(zip(group.rollout.completions, group.scores, strict=True)):
        rows.append(
            SampleRow(
                source=prompt.task,
                prompt_id=prompt.prompt_id,
                index=prompt.index,
                sample=i,
                messages=prompt.messages,
                answer=prompt.answer,
                meta=prompt.meta,
                response=completion.text,
                tokens=len(completion.token_ids),
                finish_reason=completion.finish_reason,
                reward=None if score.error else score.reward,
                parts=score.parts,
                error=score.error,
                answer_text=canonical_answer(
                    completion.text,
                    completion.finish_reason,
                    opened=opened,
                    choices=options(prompt.answer, prompt.meta),
                ),
            )
        )
    return rows


def _name(part: Part) -> str:
    return f"sampling {part.source} [{part.start}, {part.stop})"
