"""Offline scoring: JSON lines in, the same lines with their scores out, in constant memory.

The output has the order of the input, so after an interruption its length says where to continue.
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
from r1ray.rewards.base import Sample
from r1ray.rewards.scorer import Judged, Pending, Scorer
from r1ray.types import Score
from r1ray.util.files import read_json, write_atomic

WINDOW = 256
"""Number of lines that are scored at once."""
_ADDED = ("reward", "parts", "error", "notes")
_FINISHED = ("stop", "length", "abort")


@dataclass(slots=True)
class Times:
    """Histogram of durations: 40 bins for each power of ten, so quantiles are right within 6%."""

    counts: Counter[int] = field(default_factory=Counter)

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[math.ceil(40 * math.log10(max(seconds, 1e-7)))] += 1

    def quantile(self, q: float) -> float:
        """The quantile `q` of the durations in seconds; NaN if there are none."""
        left = q * self.counts.total()
        for place, count in sorted(self.counts.items()):
            left -= count
            if left <= 0:
                return float(10 ** (place / 40))
        return math.nan


@dataclass(slots=True)
class Summary:
    """Totals over all lines of the output, including those of earlier runs; times are of this run."""

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
        """Mean reward of the lines without an error; NaN if there are none."""
        judged = self.lines - self.errors.total()
        return self.rewards / judged if judged else math.nan


def score_file(
    source: Path, out: Path | None, scorer: Scorer, progress: Callable[[int], None], how: Mapping[str, Any]
) -> Summary:
    """Score every line of `source` that `out` does not hold yet, and append it to `out`.

    `progress` is called with the number of bytes of `source` that are done. `how` holds the
    settings that the scores depend on, as JSON types; it is kept beside `out`. Raises ConfigError
    if `source` cannot be read, and if `out` holds anything but scores of the first lines of
    `source` with the same settings.
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
            where = f"{out} does not hold scores of {source}"
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
    """The sample that a line holds. Raises DataError for a line without a response, or with a bad field.

    `response` is required. If it still ends with the token that ended the completion, `end_token`
    names that token (`<|im_end|>`), and it is removed. `answer` (for code: `tests`), `opening`
    (`<think>`, if the prompt ended with it), `target_language`, `choices`, `language`, `tokens`,
    `max_new_tokens`, `finish_reason` and `messages` are optional. User-defined rewards find every
    field in `meta`.
    """
    if not isinstance(line.get("response"), str):
        raise DataError("`response`: expected a string")
    if not isinstance(end_token := line.get("end_token", ""), str):
        raise DataError(f"end_token: expected a string, got {end_token!r:.40}")
    finish = line.get("finish_reason", "stop")
    if finish not in _FINISHED:
        raise DataError(f"finish_reason: expected one of {', '.join(_FINISHED)}, got {finish!r:.40}")
    meta = {key: value for key, value in line.items() if key != "response"}
    if "tests" in line:
        meta["tests"] = _with_prompt(line["tests"], line.get("prompt"))
    messages = line.get("messages") or ([{"role": "user", "content": str(line["prompt"])}] if "prompt" in line else [])
    return Sample(
        response=line["response"].removesuffix(end_token),
        answer=line.get("answer", meta.get("tests")),
        prompt_id=str(line.get("id", "")),
        messages=tuple(messages),
        meta=meta,
        tokens=_count(line, "tokens"),
        max_new_tokens=_count(line, "max_new_tokens"),
        finish_reason=finish,
    )


def _with_prompt(tests: Any, prompt: Any) -> Any:
    """HumanEval's rows hold the code that the response continues in `prompt`, beside the tests."""
    if isinstance(tests, dict) and "entry_point" in tests and isinstance(prompt, str):
        return {"prompt": prompt, **tests} if f"def {tests['entry_point']}" in prompt else tests
    return tests


def _count(line: Mapping[str, Any], key: str) -> int | None:
    value = line.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise DataError(f"{key}: expected a number of tokens, an integer >= 0, got {value!r:.40}")
    return value


def _parsed(raw: bytes) -> tuple[dict[str, Any], str | None]:
    """The object that a line holds and None, or a stand-in for it and the error."""
    try:
        line = json.loads(raw)
        if isinstance(line, dict):
            return line, None
        reason = f"expected a JSON object, got a {type(line).__name__}"
    except (ValueError, RecursionError) as e:
        reason = f"the line is not JSON in UTF-8: {e}"
    return {"line": raw[:200].decode("utf-8", "replace")}, f"DataError: {reason}"


def _begin(raw: bytes, scorer: Scorer) -> tuple[dict[str, Any], Pending | str]:
    """The line, and its pending score or the error."""
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
    sink.write(json.dumps(scored).encode() + b"\n")  # ASCII only: lone surrogates survive
    return size


def how_file(out: Path) -> Path:
    """The file beside `out` that holds the settings its lines were scored with."""
    return out.with_name(out.name + ".how.json")


def _check_how(out: Path, sink: IO[bytes], how: Mapping[str, Any]) -> None:
    """Write `how` for a new output. Raises ConfigError for one that has lines and other settings."""
    file, now = how_file(out), json.loads(json.dumps(how))
    sink.seek(0)
    if not sink.read(1):
        write_atomic(file, json.dumps(now, indent=1).encode())
        return
    if not file.is_file():
        raise ConfigError(
            f"{out} has lines, but {file.name}, which holds their settings, is missing: choose another --out"
        )
    before = read_json(file)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise ConfigError(
                f"{out} was scored with {key} = {json.dumps(before.get(key))}, now {key} = {json.dumps(now.get(key))}: "
                f"choose another --out, or remove it and {file.name}"
            )


def _resume(lines: Iterator[bytes], sink: IO[bytes], summary: Summary, names: set[str], where: str) -> None:
    """Skip the lines that `sink` already holds; remove a line that a killed run left incomplete."""
    sink.seek(0)
    complete = 0  # bytes of complete lines
    for done in sink:
        if not done.endswith(b"\n"):
            break
        line, _ = _parsed(next(lines, b""))
        scored, _ = _parsed(done)
        kept = {key: value for key, value in scored.items() if key not in _ADDED}
        if json.dumps(kept) != json.dumps({k: v for k, v in line.items() if k not in _ADDED}) or "parts" not in scored:
            raise ConfigError(f"{where} (line {summary.lines + 1} differs): choose another --out, or remove it")
        if scored["error"] is None and set(scored["parts"]) != names:
            raise ConfigError(
                f"{where}: its rewards are {', '.join(scored['parts'])}; choose another --out, or remove it"
            )
        summary.add(scored)
        complete += len(done)
    summary.resumed = summary.lines
    sink.truncate(complete)
    sink.seek(0, os.SEEK_END)
