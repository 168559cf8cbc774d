"""`python -m benchmarks.chaos OVERLAY [KEY=VALUE]... --kills N [--every SECONDS] --seed N --out FILE`."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.chaos.campaign import Campaign, schedule

NOISE = 3.0
"""Accuracies that differ by fewer standard errors count as equal."""


def main() -> int:
    """Run both campaigns and write the figures.

    Returns 0 if the run finished, `r1ray verify` found no violation, and accuracy and reward equal
    those of an undisturbed run within `NOISE` standard errors.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("overlay", type=Path)
    parser.add_argument("settings", nargs="*", help="configuration keys, including run.dir")
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--every", type=float, help="seconds from one kill to the next; default: soon after a recovery")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="file for the figures, JSON")
    arguments = parser.parse_intermixed_args()
    settings = dict(item.split("=", 1) for item in arguments.settings)
    run = Path(settings.pop("run.dir", "runs/chaos"))
    os.nice(5)

    def campaign(run: Path) -> Campaign:
        changed = [f"{key}={value}" for key, value in settings.items()]
        logs = run.with_name(f"{run.name}-logs")
        return Campaign(
            run=run,
            overlay=arguments.overlay,
            settings=changed,
            seed=arguments.seed,
            logs=logs,
            every_s=arguments.every,
        )

    undisturbed = campaign(run.with_name(f"{run.name}-undisturbed")).execute([])
    figures = campaign(run).execute(schedule(arguments.kills, arguments.seed))
    compared = (
        "seconds",
        "seconds_from_the_first_step",
        "steps",
        "groups",
        "groups_redone",
        "tokens_wasted_percent_at_most",
        "evaluations",
        "reward",
    )
    figures["undisturbed"] = {key: undisturbed[key] for key in compared}
    figures["standard_errors_apart"] = difference_in_standard_errors(measured(figures), measured(undisturbed))
    figures["effective_time"] = round(
        undisturbed["seconds_from_the_first_step"] / figures["seconds_from_the_first_step"], 3
    )
    text = json.dumps(figures, indent=1)
    print(text)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    learned = all(abs(z) < NOISE for z in figures["standard_errors_apart"].values())
    return 0 if learned and figures["verify"]["exit_code"] == 0 else 1


def measured(figures: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Return (value, standard error) of each held-out accuracy and of the training reward."""
    found = {source: (row["accuracy"], row["accuracy_se"]) for source, row in figures["evaluations"].items()}
    return {**found, "reward": (figures["reward"]["mean"], figures["reward"]["se"])}


def difference_in_standard_errors(
    one: Mapping[str, tuple[float, float]], other: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """Return the differences between two runs, in standard errors of the difference."""
    distances: dict[str, float] = {}
    for name, (value, error) in one.items():
        difference, both = value - other[name][0], math.hypot(error, other[name][1])
        distances[name] = round(difference / max(both, 1e-9), 2)
    return distances


if __name__ == "__main__":
    raise SystemExit(main())
