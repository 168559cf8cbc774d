"""`python -m benchmarks.chaos OVERLAY [KEY=VALUE]... --kills N --seed N --out FILE`."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from benchmarks.chaos.campaign import Campaign, schedule

NOISE = 3.0
"""Accuracies that differ by fewer standard errors count as equal."""


def main() -> int:
    """Returns 0 where the run reached its end, `r1ray verify` found nothing, and it learned what an undisturbed run learns."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("overlay", type=Path)
    parser.add_argument("settings", nargs="*", help="keys of the configuration, run.dir among them")
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="where the figures go, as JSON")
    arguments = parser.parse_intermixed_args()
    settings = dict(item.split("=", 1) for item in arguments.settings)
    run = Path(settings.pop("run.dir", "runs/chaos"))
    os.nice(5)

    def campaign(run: Path) -> Campaign:
        changed = [f"{key}={value}" for key, value in settings.items()]
        logs = run.with_name(f"{run.name}-logs")
        return Campaign(run=run, overlay=arguments.overlay, settings=changed, seed=arguments.seed, logs=logs)

    undisturbed = campaign(run.with_name(f"{run.name}-undisturbed")).execute([])
    figures = campaign(run).execute(schedule(arguments.kills, arguments.seed))
    compared = ("seconds", "steps", "groups", "groups_redone", "tokens_wasted_percent_at_most", "evaluations")
    figures["undisturbed"] = {key: undisturbed[key] for key in compared}
    figures["standard_errors_apart"] = apart(figures["evaluations"], undisturbed["evaluations"])
    text = json.dumps(figures, indent=1)
    print(text)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    learned = all(abs(z) < NOISE for z in figures["standard_errors_apart"].values())
    return 0 if learned and figures["verify"]["exit_code"] == 0 else 1


def apart(one: Mapping[str, Mapping[str, float]], other: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """By source, the difference of two accuracies in standard errors of the difference."""
    distances: dict[str, float] = {}
    for source, figures in one.items():
        error = math.hypot(figures["accuracy_se"], other[source]["accuracy_se"])
        difference = figures["accuracy"] - other[source]["accuracy"]
        distances[source] = round(difference / max(error, 1e-9), 2)
    return distances


if __name__ == "__main__":
    raise SystemExit(main())
