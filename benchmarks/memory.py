"""Check that no process of a run grows: a long run of the embedded default, and the slope of each one's memory.

    python -m benchmarks.memory [--steps 500] [--run RUN]        a run takes about 1 s per step on two idle cores

`--run` examines a run that exists. Exit code 1 if a process grows by more than MOST of its memory over 500 steps. Runs
of fewer steps get no verdict: their processes still grow to their working size.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from r1ray.errors import ConfigError
from r1ray.run.memory_growth import Growth, memory_growth
from r1ray.run.metrics import read_metrics

ROOT = Path(__file__).resolve().parent.parent
STEPS = 500
MOST = 0.05
"""Largest growth over STEPS steps, as a share of the memory after the warm-up."""


def train(run: Path, steps: int) -> None:
    """Train the embedded default without evaluations."""
    command = [sys.executable, "-m", "r1ray", "train", "conf/tiny.yaml", f"run.dir={run}", f"run.steps={steps}"]
    subprocess.run([*command, "evaluation.every_steps=0"], cwd=ROOT, check=True, timeout=60 + 20 * steps)


def grows(found: Growth) -> bool:
    """Whether the process would grow by more than MOST in STEPS steps."""
    return found.bytes_per_step * STEPS > MOST * found.first_bytes


def table(found: list[Growth], *, judged: bool) -> list[str]:
    """One line per kind of process, with a verdict if `judged`."""
    lines = [f"{'process':<10}{'first, MiB':>12}{'last, MiB':>12}{'KiB per step':>15}"]
    for each in found:
        verdict = "  grows" if judged and grows(each) else ""
        lines.append(
            f"{each.process:<10}{each.first_bytes / 2**20:>12.1f}{each.last_bytes / 2**20:>12.1f}"
            f"{each.bytes_per_step / 2**10:>15.2f}{verdict}"
        )
    return lines


def main() -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--run", type=Path, help="a run folder; none: train one in a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or Path(folder) / "run"
        if options.run is None:
            train(run, options.steps)
        rows = read_metrics(run)
    found, judged = memory_growth(rows), len(rows) >= STEPS
    if not found:
        raise ConfigError(f"{run} has too few steps to show a trend: give --steps of at least 20")
    print("\n".join(table(found, judged=judged)))
    if not judged:
        print(f"{len(rows)} steps: no verdict below {STEPS}, because the processes still grow to their working size")
    return int(judged and any(grows(each) for each in found))


if __name__ == "__main__":
    sys.exit(main())
