"""Scoring responses that exist already: JSON lines in, the same lines with their scores out, in constant memory.

The output is in the order of the input, so what it holds says where to go on after an interruption.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from r1ray.errors import ConfigError, DataError
from r1ray.rewards.base import Sample, without_end_tokens
from r1ray.rewards.scorer import Judged, Pending, Scorer
from r1ray.types import Score
from r1ray.util.files import read_json, write_atomic

WINDOW = 256
"""Lines that are being judged at once."""
_ADDED = ("reward", "parts", "error", "notes")
_FINISHED = ("stop", "length", "abort")


@dataclass(slots=True)
class Times:
    """A histogram of durations: 40 classes from one power of ten to the next, so quantiles are right within 6%."""

    counts: Counter[int] = field(default_factory=Counter)

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[math.ceil(40 * math.log10(max(seconds, 1e-7)))] += 1

    def quantile(self, q: float) -> float:
        """Seconds that a share `q` of the durations did not exceed; NaN where there are none."""
        left = q * self.counts.total()
        for place, count in sorted(self.counts.items()):
            left -= count
            if left <= 0:
                return float(10 ** (place / 40))
        return math.nan


@dataclass(slots=True)
class Summary:
    """Of all lines of the output, those of earlier runs included; times are of this run."""

    lines: int = 0
    resumed: int = 0
    rewards: float = 0.0
    parts: dict[str, tuple[float, int]] = field(default_factory=dict)  # sum and number of values
    errors: Counter[str] = field(default_factory=Counter)  # by name
    times: Times = field(default_factory=Times)

    def add(self, line: Mapping[str, Any]) -> None:
        """Count one line of the output."""
        self.lines += 1
        for name, value in line["parts"].items():
            total, count = self.parts.get(name, (0.0, 0))
            self.parts[name] = total + value, count + 1
        if line["error"] is None:
            self.rewards += line["reward"]
        else:
            self.errors[line["error"].partition(":")[0]] += 1

    @property
    def mean(self) -> float:
        """Mean reward of the lines without an error; NaN where there are none."""
        judged = self.lines - self.errors.total()
        return self.rewards / judged if judged else math.nan


def score_file(
    source: Path, out: Path | None, scorer: Scorer, progress: Callable[[int], None], how: Mapping[str, Any]
) -> Summary:
    """Score every line of `source`; append to `out` what is not in it yet.

    `progress` is called with the bytes of `source` that are done. `how`: all that the scores depend on besides the lines, as JSON
    types; it is kept beside `out`. Raises ConfigError for a source that cannot be read, and for an `out` that holds anything
    else than scores of the first lines of this source, or scores that were made in another way.
    """
    summary = Summary()
    try:
        lines = source.open("rb")
    except OSError as e:
        raise ConfigError(f"{source} cannot be read: {e.strerror or e}") from e
    with lines, open(os.devnull if out is None else out, "a+b") as sink:
        filled = (raw for raw in lines if raw.strip())
        if out is not None:
            _check_how(out, sink, how)
            where = f"{out} holds something else than the scores of {source}"
            _resume(filled, sink, summary, set(scorer.part_names), where)
            progress(lines.tell())
        waiting: deque[tuple[dict[str, Any], Pending | str, int]] = deque()
        for raw in filled:
            waiting.append((*_begin(raw, scorer), len(raw)))
            if len(waiting) >= WINDOW:
                progress(_finish(*waiting.popleft(), sink, summary))
        while waiting:
            progress(_finish(*waiting.popleft(), sink, summary))
    return summary


def sample_of(line: Mapping[str, Any]) -> Sample:
    """The sample of a line. Raises DataError for a line that is none.

    `response` is needed; `answer` (for code: `tests`), `opening` (`<think>`, where the prompt ended with it), `target_language`,
    `choices`, `language`, `tokens`, `max_new_tokens`, `finish_reason` and `messages` are used where they are; user-defined
    rewards find every field in `meta`.
    """
    if not isinstance(line.get("response"), str):
        raise DataError("the line has no text under `response`")
    finish = line.get("finish_reason", "stop")
    if finish not in _FINISHED:
        raise DataError(f"finish_reason = {finish!r:.40} must be one of {', '.join(_FINISHED)}")
    meta = {key: value for key, value in line.items() if key != "response"}
    if "tests" in line:
        meta["tests"] = _with_prompt(line["tests"], line.get("prompt"))
    messages = line.get("messages") or ([{"role": "user", "content": str(line["prompt"])}] if "prompt" in line else [])
    return Sample(
        response=without_end_tokens(line["response"]),
        answer=line.get("answer", meta.get("tests")),
        prompt_id=str(line.get("id", "")),
        messages=tuple(messages),
        meta=meta,
        tokens=_count(line, "tokens"),
        max_new_tokens=_count(line, "max_new_tokens"),
        finish_reason=finish,
    )


def _with_prompt(tests: Any, prompt: Any) -> Any:
    """HumanEval's rows have the code that the response continues beside the tests."""
    if isinstance(tests, dict) and "entry_point" in tests and isinstance(prompt, str):
        return {"prompt": prompt, **tests} if f"def {tests['entry_point']}" in prompt else tests
    return tests


def _count(line: Mapping[str, Any], key: str) -> int | None:
    value = line.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise DataError(f"{key} = {value!r:.40} must be a whole number of tokens")
    return value


def _parsed(raw: bytes) -> tuple[dict[str, Any], str | None]:
    """The object that a line holds, or a stand-in for it and what is wrong."""
    try:
        line = json.loads(raw)
        if isinstance(line, dict):
            return line, None
        reason = f"the line is a {type(line).__name__}, not an object"
    except (ValueError, RecursionError) as e:
        reason = f"the line is no JSON in UTF-8: {e}"
    return {"line": raw[:200].decode("utf-8", "replace")}, f"DataError: {reason}"


def _begin(raw: bytes, scorer: Scorer) -> tuple[dict[str, Any], Pending | str]:
    """The line, and its judgement under way or the reason why there is none."""
    line, error = _parsed(raw)
    if error is not None:
        return line, error
    try:
        return line, scorer.begin(sample_of(line))
    except DataError as e:
        return line, f"DataError: {e}"


def _finish(line: dict[str, Any], pending: Pending | str, size: int, sink: IO[bytes], summary: Summary) -> int:
    if isinstance(pending, str):
        judged = Judged(score=Score(reward=0.0, parts={}, error=pending), notes={}, seconds=0.0)
    else:
        judged = pending.result()
        summary.times.add(judged.seconds)
    score = judged.score
    kept = {key: value for key, value in line.items() if key not in _ADDED}
    scored = {**kept, "reward": None if score.error else score.reward, "parts": score.parts, "error": score.error}
    if judged.notes:
        scored["notes"] = judged.notes
    summary.add(scored)
    sink.write(json.dumps(scored).encode() + b"\n")  # all in ASCII: half surrogate pairs survive
    return size


def how_file(out: Path) -> Path:
    """Where it is kept how the lines of `out` were scored."""
    return out.with_name(out.name + ".how.json")


def _check_how(out: Path, sink: IO[bytes], how: Mapping[str, Any]) -> None:
    """Keep `how` for a new output; refuse one that has lines and was made otherwise."""
    file, now = how_file(out), json.loads(json.dumps(how))
    sink.seek(0)
    if not sink.read(1):
        write_atomic(file, json.dumps(now, indent=1).encode())
        return
    if not file.is_file():
        raise ConfigError(
            f"{out} has lines, and {file.name} is missing, which says how they were scored: give another --out"
        )
    before = read_json(file)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise ConfigError(
                f"{out}: it was scored with {key} = {json.dumps(before.get(key))}, this is with {json.dumps(now.get(key))}: "
                f"give another --out, or remove it and {file.name}"
            )


def _resume(lines: Iterator[bytes], sink: IO[bytes], summary: Summary, names: set[str], where: str) -> None:
    """Skip the lines that `sink` holds already; cut off a line that a killed run left unfinished."""
    sink.seek(0)
    whole = 0
    for done in sink:
        if not done.endswith(b"\n"):
            break
        line, _ = _parsed(next(lines, b""))
        scored, _ = _parsed(done)
        kept = {key: value for key, value in scored.items() if key not in _ADDED}
        if json.dumps(kept) != json.dumps({k: v for k, v in line.items() if k not in _ADDED}) or "parts" not in scored:
            raise ConfigError(f"{where} (line {summary.lines + 1} differs): give another --out, or remove it")
        if scored["error"] is None and set(scored["parts"]) != names:
            raise ConfigError(
                f"{where}: it was scored for {', '.join(scored['parts'])}; give another --out, or remove it"
            )
        summary.add(scored)
        whole += len(done)
    summary.resumed = summary.lines
    sink.truncate(whole)
    sink.seek(0, os.SEEK_END)
