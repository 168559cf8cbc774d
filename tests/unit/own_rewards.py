"""Rewards as a user might write them; loaded by name."""

from __future__ import annotations

import os
import time
from pathlib import Path

from r1ray.rewards.base import Sample


def words(sample: Sample, per_word: float = 1.0) -> float:
    return per_word * len(sample.response.split())


def by_meta(sample: Sample) -> float:
    return float(sample.meta["value"])


def hangs(sample: Sample) -> float:
    """Run for the given time; create the file `begun` at the start."""
    if "begun" in sample.meta:
        Path(sample.meta["begun"]).touch()
    while sample.response == "hang":
        time.sleep(0.01)
    return 1.0


def dies(sample: Sample) -> float:
    os._exit(3)


def raises(sample: Sample) -> float:
    raise KeyError("no such thing")


def returns_nan(sample: Sample) -> float:
    return float("nan")


def environment(sample: Sample) -> float:
    """1.0 where the process is clean: no Ray, no torch, no variable of Ray's."""
    import sys

    heavy = {"ray", "torch", "vllm", "transformers"} & set(sys.modules)
    return float(not heavy and not any(k.startswith("RAY_") for k in os.environ))


not_callable = 3


def rejects(sample: Sample) -> float:
    raise ValueError(f"cannot score {sample.response!r}")


def computes(sample: Sample, seconds: float = 0.4) -> float:
    """1.0 after so many seconds of the processor's time."""
    began = time.process_time()
    while time.process_time() - began < seconds:
        pass
    return 1.0


def spans(sample: Sample, seconds: float = 1.0) -> float:
    """As `computes`; appends to the file `log` when it has got its turn and when it ends."""
    log = Path(sample.meta["log"])
    computes(sample, seconds / 2)
    with log.open("a") as file:
        file.write("+")
    computes(sample, seconds / 2)
    with log.open("a") as file:
        file.write("-")
    return 1.0
