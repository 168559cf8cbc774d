"""`r1ray trace`: the timeline of one group, from the ledger and the metrics of its run.

    leased --queued--> engine --generate--> done --wait for scoring--> score --> stored --queue--> batch --train--> sync

The ledger's times come from the clock of the queue's host. Durations at other hosts (`RolloutGroup.timings`, the
metrics of the step) are counted from these, so clocks that differ do not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1ray.codec import unpack_scored
from r1ray.errors import ConfigError
from r1ray.ledger.records import GroupRecord, StepTimes
from r1ray.run.folder import RunFolder
from r1ray.run.ledger import open_ledger
from r1ray.run.metrics import read_metrics
from r1ray.run.recording import RECORDED
from r1ray.run.transcripts import policies
from r1ray.types import GENERATED_S, QUEUED_S, SCORED_S, ScoredGroup
from r1ray.util.formatting import number


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One stage of a group, in seconds since the epoch."""

    stage: str
    place: str  # process in which it happened
    start: float
    end: float
    note: str = ""

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.end - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The stages of one group, and the other groups of its prompt."""

    group_id: str
    run_id: str
    state: str
    spans: tuple[Span, ...]
    notes: tuple[str, ...]  # sentences


def read_trace(run_dir: Path, group: str) -> Trace:
    """The trace of a group, "12-1", or of the last group of a prompt index, "12".

    Raises ConfigError if the run has no such group.
    """
    folder = RunFolder.open(run_dir)
    index, _, attempt = group.partition("-")
    if not index.isdigit() or (attempt and not attempt.isdigit()):
        raise ConfigError(f"{group!r}: expected a group such as 12-1, or the index of a prompt such as 12")
    with open_ledger(folder) as opened:
        if opened is None:
            raise ConfigError(f"{run_dir} has no ledger: the run has not leased its first prompt")
        ledger, _ = opened
        attempts = ledger.attempts(int(index))
        chosen = [record for record in attempts if not attempt or record.attempt == int(attempt)]
        if not chosen:
            known = f"; it has {', '.join(r.group_id for r in attempts)}" if attempts else ""
            raise ConfigError(f"{run_dir} has no group {group}{known}: `r1ray inspect {run_dir}` lists groups")
        record = chosen[-1]
        payload = ledger.payloads([record.group_id])[0] if record.has_payload else None
        times = None if record.step is None else ledger.step_times(record.step)
    rows = {row["step"]: row for row in read_metrics(run_dir)} if times is not None else {}
    scored = None if payload is None else unpack_scored(payload)
    return Trace(
        group_id=record.group_id,
        run_id=folder.identity().run_id,
        state=record.state,
        spans=tuple(_in_order(_spans(record, times, scored, rows.get(record.step, {})))),
        notes=tuple(_notes(record, attempts, scored)),
    )


def _spans(
    record: GroupRecord, times: StepTimes | None, scored: ScoredGroup | None, row: Mapping[str, float]
) -> Iterator[Span]:
    worker = record.worker_id
    if record.scored_at is None:
        return
    timings = {} if scored is None else scored.rollout.timings
    engine = record.leased_at + timings.get(QUEUED_S, 0.0)
    if GENERATED_S in timings:
        done = engine + timings[GENERATED_S]
        scoring = record.scored_at - timings.get(SCORED_S, 0.0)
        yield Span(
            stage="queued", place=worker, start=record.leased_at, end=engine, note="leased, not in the engine yet"
        )
        yield Span(stage="generate", place=worker, start=engine, end=done, note=_generated(scored))
        yield Span(stage="wait for scoring", place="reward worker", start=done, end=scoring)
        yield Span(stage="score", place="reward worker", start=scoring, end=record.scored_at, note=_rewards(scored))
    elif (origin := _origin(scored)) is not None:
        note = f"recorded as {origin['group_id']} in step {origin['step']} of another run"
        yield Span(stage="read the recording", place=worker, start=record.leased_at, end=record.scored_at, note=note)
    else:
        note = "its completions are pruned or it failed: no times in between"
        yield Span(stage="generate and score", place=worker, start=record.leased_at, end=record.scored_at, note=note)
    if times is None:
        return
    yield Span(stage="queue", place="queue", start=record.scored_at, end=times.bound_at)
    if times.published_at is None or "learner/step_s" not in row:  # in a replay nobody is served
        return
    sync = times.published_at - row["sync/seconds"]
    train = sync - row["learner/step_s"]
    yield Span(stage="wait for the learner", place="learner", start=times.bound_at, end=train)
    yield Span(stage="train", place="learner", start=train, end=sync, note=f"step {record.step}")
    yield Span(
        stage="sync",
        place="learner",
        start=sync,
        end=times.published_at,
        note=f"policy {int(row['step']) + 1} is served",
    )
    if times.committed_at is not None:
        yield Span(stage="until its checkpoint", place="learner", start=times.published_at, end=times.committed_at)


def _in_order(spans: Iterator[Span]) -> Iterator[Span]:
    """The spans, none of which begins before the one before it has ended: durations of other clocks may not fit."""
    before = float("-inf")
    for span in spans:
        start = max(span.start, before)
        before = max(span.end, start)
        yield Span(stage=span.stage, place=span.place, start=start, end=before, note=span.note)


def _origin(scored: ScoredGroup | None) -> Mapping[str, Any] | None:
    """Where the group of a replay was recorded; None if its own run sampled it."""
    return None if scored is None else scored.rollout.prompt.meta.get(RECORDED)


def _generated(scored: ScoredGroup | None) -> str:
    if scored is None:
        return ""
    rollout = scored.rollout
    tokens = [len(c.token_ids) for c in rollout.completions]
    by = policies(rollout.min_policy_version, rollout.max_policy_version)
    return f"{len(tokens)} completions, {sum(tokens):,} tokens, the longest {max(tokens):,}; {by}"


def _rewards(scored: ScoredGroup | None) -> str:
    return "" if scored is None else "rewards " + ", ".join(number(score.reward) for score in scored.scores)


def _notes(record: GroupRecord, attempts: list[GroupRecord], scored: ScoredGroup | None) -> Iterator[str]:
    if record.scored_at is None:
        yield f"never scored: leased by {record.worker_id} for policy {record.version}"
    if record.reason is not None:
        yield f"dropped: {record.reason}; the ledger does not keep the time"
    if scored is not None and SCORED_S not in scored.rollout.timings and _origin(scored) is None:
        yield "the time of scoring was not recorded by the r1ray that scored it"
    others = [f"{r.group_id} ({r.reason or r.state})" for r in attempts if r.group_id != record.group_id]
    if others:
        yield f"other groups of its prompt: {', '.join(others)}"


def timeline(trace: Trace, width: int = 30) -> list[str]:
    """Lines of text: offset from the lease, duration, stage, a bar, a note."""
    lines = [f"group {trace.group_id}  {trace.state}"]
    if trace.spans:
        began, whole = trace.spans[0].start, max(1e-9, trace.spans[-1].end - trace.spans[0].start)
        for span in trace.spans:
            left = round(width * (span.start - began) / whole)
            length = max(1, round(width * span.seconds / whole))
            bar = (" " * min(left, width - 1) + "█" * length)[:width].ljust(width)
            lines.append(
                f"{span.start - began:9.3f} s  {span.seconds:9.3f} s  {span.stage:<20}  {bar}  {span.note}".rstrip()
            )
    return [*lines, *trace.notes]


def chrome_trace(trace: Trace) -> dict[str, Any]:
    """The trace in the JSON form of chrome://tracing, which Perfetto reads: times in microseconds, a row per place."""
    places = list(dict.fromkeys(span.place for span in trace.spans))
    process = {"name": "process_name", "ph": "M", "pid": 1, "args": {"name": f"{trace.run_id} {trace.group_id}"}}
    rows = [
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": tid, "args": {"name": place}}
        for tid, place in enumerate(places, start=1)
    ]
    spans = [
        {
            "name": span.stage,
            "cat": "r1ray",
            "ph": "X",
            "pid": 1,
            "tid": places.index(span.place) + 1,
            "ts": span.start * 1e6,
            "dur": span.seconds * 1e6,
            "args": {"note": span.note},
        }
        for span in trace.spans
    ]
    return {"traceEvents": [process, *rows, *spans], "displayTimeUnit": "ms", "otherData": {"notes": list(trace.notes)}}
