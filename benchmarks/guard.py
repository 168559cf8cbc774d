"""Quick ratios that a change must not make much worse. `make test` runs them; `make bench` does so first.

    python -m benchmarks.guard

Each is a ratio to something simple that is measured in turn with it, so that the machine's speed cancels out; its
bounds are wide, so that noise does not fail it. One that is out of its bounds is measured a second time before it
fails.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks import measure, verifiers
from benchmarks import queue as replay_queue

REPEATS = 3
ANSWERS = 4000
FAILED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Ratios that one measurement gives, and their bounds: (lowest, highest), None without one."""

    measured: Callable[[], dict[str, measure.Summary]]
    bounds: dict[str, tuple[float | None, float | None]]


def plain_answers() -> dict[str, measure.Summary]:
    """Plain answers that the scorer judges a second, against a loop that finds the answer and compares it."""
    samples = [verifiers.plain(i) for i in range(ANSWERS)]
    pattern = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)

    def bare() -> float:
        began = time.perf_counter()
        for sample in samples:
            found = pattern.findall(sample.response)[-1]
            assert float(found.replace(",", "")) == float(sample.answer)
        return len(samples) / (time.perf_counter() - began)

    judge = verifiers.scorer("math")
    try:
        found = measure.interleaved({"scorer": lambda: verifiers.rate(judge, samples), "bare": bare}, REPEATS)
    finally:
        judge.close()
    return {"plain answers, scorer / bare loop": measure.ratio(found["scorer"], found["bare"])}


def stored_groups() -> dict[str, measure.Summary]:
    """Groups that the replay queue stores a second, against a bare SQLite table."""
    found = replay_queue.by_clients(REPEATS)
    ours, bare = ([m.per_s for m in found[name]] for name in ("ledger, 64 clients", "sqlite, 1 client"))
    return {"groups stored, queue / bare SQLite": measure.ratio(ours, bare)}


def training_step() -> dict[str, measure.Summary]:
    """Processor time of a training step, against bare torch loops on packed and on padded micro-batches."""
    from benchmarks import learner

    found = learner.measure_size("1M", repeats=1)
    names = {"system / bare": "training step / bare torch", "padded / system": "padded torch / training step"}
    return {name: ratio for key, name in names.items() if isinstance(ratio := found[key], measure.Summary)}


GUARDS = (
    Guard(measured=plain_answers, bounds={"plain answers, scorer / bare loop": (0.006, None)}),
    Guard(measured=stored_groups, bounds={"groups stored, queue / bare SQLite": (0.25, None)}),
    Guard(
        measured=training_step,
        bounds={"training step / bare torch": (None, 1.5), "padded torch / training step": (1.2, None)},
    ),
)


def problems(guard: Guard) -> tuple[dict[str, measure.Summary], list[str]]:
    """What was measured, and what is out of bounds."""
    found = guard.measured()
    wrong = []
    for name, (least, most) in guard.bounds.items():
        value = found[name].median
        if least is not None and value < least:
            wrong.append(f"{name}: expected at least {least:g}, got {found[name]}")
        if most is not None and value > most:
            wrong.append(f"{name}: expected at most {most:g}, got {found[name]}")
    return found, wrong


def check(guards: Sequence[Guard]) -> list[str]:
    """Measure all and print the ratios. Returns those that are out of their bounds twice."""
    failed = []
    for guard in guards:
        began = time.monotonic()
        found, wrong = problems(guard)
        if wrong:
            print(f"measured again: {'; '.join(wrong)}", flush=True)
            found, wrong = problems(guard)
        failed += wrong
        for name, value in found.items():
            print(f"{name}: {value}", flush=True)
        print(f"  {time.monotonic() - began:.1f} s", flush=True)
    return failed


def main() -> None:
    """Measure every ratio; exit with FAILED and their names if some are out of their bounds."""
    from benchmarks.learner import in_environment_of_a_rank

    in_environment_of_a_rank("benchmarks.guard")
    if failed := check(GUARDS):
        print("\n".join(f"slower than it was: {text}" for text in failed), file=sys.stderr)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
