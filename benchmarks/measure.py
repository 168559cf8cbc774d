"""What all benchmarks share: an idle machine, interleaved repetitions, medians with their spread, tables, results.

    parser = measure.parser(__doc__, repeats=5)
    session = measure.start("learner", parser.parse_args())        # with --write it refuses a busy machine
    seconds = measure.interleaved({"system": ours, "bare": theirs}, session.repeats)
    session.finish(result, {"learner/bare": measure.ratio(seconds["system"], seconds["bare"])})

A claim is a ratio within one repetition, because the speed of a machine drifts more between minutes than two variants
differ. Results are written to benchmarks/results/<name>.json with the machine and what else it did.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from r1ray.util.machine import this_machine

RESULTS = Path(__file__).parent / "results"
IDLE_CORES = 0.3
"""Cores in use above which a machine is busy, and the seconds over which they are counted. Not the load average, which
remembers the benchmark before this one for minutes."""
LOOK_S = 3.0
WIDEST_SPREAD = 0.1
"""Spread of a ratio above which its median says little."""
REFUSED = 3
"""Exit code if results are not written because the machine is busy or a spread is too wide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Several measurements of one quantity."""

    median: float
    spread: float  # (largest - smallest) / median
    values: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.median:.3f} ({min(self.values):.3f} to {max(self.values):.3f})"

    def to_json(self) -> dict[str, Any]:
        """Rounded to four significant digits."""
        short = [float(f"{value:.4g}") for value in (self.median, self.spread, *self.values)]
        return {"median": short[0], "spread": short[1], "values": short[2:]}


def summarise(values: Sequence[float]) -> Summary:
    """Median and spread of at least one value."""
    median = statistics.median(values)
    return Summary(median=median, spread=(max(values) - min(values)) / median, values=tuple(values))


def ratio(a: Sequence[float], b: Sequence[float]) -> Summary:
    """Of a to b, repetition by repetition."""
    return summarise([x / y for x, y in zip(a, b, strict=True)])


def interleaved(variants: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Measure A B C, C B A, A B C, ...: `repeats` values of each, after one round that is thrown away."""
    measured: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(-1, repeats):
        order = list(variants) if repeat % 2 else list(variants)[::-1]
        for name in order:
            value = variants[name]()
            if repeat >= 0:
                measured[name].append(value)
    return measured


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows under heads; the first column is flush left, the others flush right. Floats get three digits."""
    cells = [[f"{x:.3f}" if isinstance(x, float) else str(x) for x in row] for row in (heads, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    return "\n".join(
        "  ".join(text.rjust(w) if i else text.ljust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    )


def machine() -> dict[str, Any]:
    """Name, cores and memory of this machine, how many cores are in use, and the Python."""
    cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8") if sys.platform == "linux" else ""
    names = [line.partition(":")[2].strip() for line in cpus.splitlines() if line.startswith("model name")]
    found = this_machine()
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": found.cores,
        "memory_gib": round(found.memory_bytes / 2**30, 1),
        "cores_in_use": round(busy_cores(), 2),
        "python": platform.python_version(),
    }


def busy_cores() -> float:
    """How many cores all programs used in the mean of the next LOOK_S seconds, those of other containers included."""
    return float(psutil.cpu_percent(LOOK_S)) / 100 * (os.cpu_count() or 1)


def parser(description: str | None, *, repeats: int) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--repeats", type=int, default=repeats, help="repetitions that count")
    made.add_argument("--write", action="store_true", help="store the result below benchmarks/results/")
    made.add_argument("--even-if-busy", action="store_true", help="store it although the machine is busy")
    return made


class Session:
    """One run of a benchmark: what the machine was like at its start, and whether its result may be stored."""

    def __init__(self, name: str, arguments: argparse.Namespace, results: Path = RESULTS) -> None:
        self.repeats: int = arguments.repeats
        self.machine = machine()
        self._name, self._arguments, self._results = name, arguments, results
        used = self.machine["cores_in_use"]
        if used > IDLE_CORES:
            self._complain(f"the machine is busy: {used} cores in use, expected at most {IDLE_CORES}")

    def finish(self, result: Mapping[str, Any], claims: Mapping[str, Summary]) -> None:
        """Store the result if that was requested. `claims` are ratios, whose spread must be small."""
        for name, claim in claims.items():
            if claim.spread > WIDEST_SPREAD:
                self._complain(f"{name} has a spread of {claim.spread:.2f}, expected at most {WIDEST_SPREAD}: {claim}")
        if not self._arguments.write:
            return
        whole = {"machine": self.machine, **result, "claims": {name: c.to_json() for name, c in claims.items()}}
        self._results.mkdir(exist_ok=True)
        (self._results / f"{self._name}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")

    def _complain(self, problem: str) -> None:
        refuse = self._arguments.write and not self._arguments.even_if_busy
        print(f"{self._name}: {problem}{'; nothing is stored without --even-if-busy' if refuse else ''}", flush=True)
        if refuse:
            raise SystemExit(REFUSED)


def start(name: str, arguments: argparse.Namespace) -> Session:
    """Begin: print the machine, and refuse it if a result is to be stored and the machine is busy."""
    session = Session(name, arguments)
    print(", ".join(f"{key} {value}" for key, value in session.machine.items()), flush=True)
    return session
