"""Check of `rollout.autoscale`."""

from __future__ import annotations

from collections.abc import Iterator

from r1ray.config.problems import Problem, problem
from r1ray.config.schema import Config


def autoscale(config: Config) -> Iterator[Problem]:
    """Find bounds of which one is missing, or that contradict each other or the other numbers of workers."""
    rollout = config.rollout
    least, most = rollout.autoscale.min, rollout.autoscale.max
    if least is None and most is None:
        return
    if least is None or most is None:
        key = "min" if least is None else "max"
        yield problem(config, f"rollout.autoscale.{key}", "is not set, but the other bound is", "set both, or none")
        return
    if least > most:
        yield problem(
            config, "rollout.autoscale.min", f"is above rollout.autoscale.max = {most}", f"use at most {most}"
        )
    elif not least <= rollout.workers <= most:
        message = f"is not within rollout.autoscale = {least} to {most}"
        yield problem(config, "rollout.workers", message, f"start with {least} to {most} workers")
    if most > rollout.max_workers:
        fix = f"use at most {rollout.max_workers}, or raise rollout.max_workers"
        yield problem(config, "rollout.autoscale.max", f"is above rollout.max_workers = {rollout.max_workers}", fix)
    if config.run.deterministic:
        message = "lets timing decide the number of workers, but run.deterministic is true"
        yield problem(config, "rollout.autoscale.max", message, "set both bounds to null")
