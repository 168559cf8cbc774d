"""`python -m benchmarks.chaos OVERLAY [KEY=VALUE]... --kills N --seed N --out FILE`."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from benchmarks.chaos.campaign import Campaign, schedule


def main() -> int:
    """Returns 0 where the run reached its end and `r1ray verify` found nothing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("overlay", type=Path)
    parser.add_argument("settings", nargs="*", help="keys of the configuration, run.dir among them")
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--logs", type=Path, default=Path("runs/chaos-logs"))
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    arguments = parser.parse_intermixed_args()
    settings = dict(item.split("=", 1) for item in arguments.settings)
    run = Path(settings.pop("run.dir", "runs/chaos"))
    os.nice(5)
    campaign = Campaign(
        run=run,
        overlay=arguments.overlay,
        settings=[f"{k}={v}" for k, v in settings.items()],
        seed=arguments.seed,
        logs=arguments.logs,
    )
    figures = campaign.execute(schedule(arguments.kills, arguments.seed))
    text = json.dumps(figures, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    return int(figures["verify"]["exit_code"])


if __name__ == "__main__":
    raise SystemExit(main())
