"""Submit a run to a cluster: check what does not depend on the machine, pack the working tree, start the driver there.

config, local checks -> working tree as zip -> Jobs API -> driver on the head: `r1ray train` with the same arguments
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from r1ray.config.load import load_config
from r1ray.config.problems import Problem, refuse
from r1ray.config.schema import Config
from r1ray.errors import ConfigError
from r1ray.launch.jobs import Jobs
from r1ray.launch.working_tree import pack
from r1ray.run.view import RAY_PHASE
from r1ray.telemetry.logs import message_of

MARGIN_S = 30.0
"""Seconds that `ray job stop` leaves the driver beyond deadlines.shutdown_s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A run to be submitted. Producers: `new_run`, `resumed_run`."""

    run: str  # its folder, as the hosts of the cluster see it
    words: tuple[str, ...]  # of the command line on the head
    shutdown_s: float


def new_run(overlays: Sequence[str], overrides: Sequence[str], *, fresh: bool = False) -> Order:
    """The order for a new run. Raises ConfigError for each error that does not depend on the machine."""
    loaded = load_config(overlays, overrides, "train")
    refuse([*_elsewhere(loaded.config)], loaded.provenance)
    words = ["train", *(_shipped(name) for name in overlays), *overrides, *(["--fresh"] if fresh else [])]
    return Order(run=loaded.config.run.dir, words=tuple(words), shutdown_s=loaded.config.deadlines.shutdown_s)


def resumed_run(run: Path, overlays: Sequence[str], overrides: Sequence[str]) -> Order:
    """The order to resume `run`, whose configuration is in its folder on the cluster."""
    refuse_relative(run)
    words = ["train", "--resume", str(run), *(_shipped(name) for name in overlays), *overrides]
    return Order(run=str(run), words=tuple(words), shutdown_s=Config().deadlines.shutdown_s)


def submit(order: Order, jobs: Jobs, tree: Path) -> str:
    """Pack `tree`, start the driver in it, and return the id of the job. Raises ConfigError and InfrastructureError."""
    with tempfile.TemporaryDirectory(prefix="r1ray-submit-") as scratch:
        archive = Path(scratch) / "tree.zip"
        pack(tree, archive)
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", PurePosixPath(order.run).name)
        variables = {"PYTHONUNBUFFERED": "1", "RAY_JOB_STOP_WAIT_TIME_S": f"{order.shutdown_s + MARGIN_S:.0f}"}
        return jobs.submit(
            order.words,
            submission_id=f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}",
            runtime_env={"working_dir": str(archive), "env_vars": variables},
            metadata={"r1ray": "train", "run": order.run},
        )


def until_started(jobs: Jobs, job: str) -> Iterator[str]:
    """What the driver prints until its checks are passed. Raises RemoteFailed if it ends before."""
    for line in jobs.lines(job):
        yield line
        if message_of(line).startswith(RAY_PHASE):
            return
    jobs.refuse_failure(job, "the start of the run")


def refuse_relative(run: Path) -> None:
    """Raise ConfigError unless `run` is an absolute path: the head has another working directory."""
    if not run.is_absolute():
        raise ConfigError(f"{run}: expected the absolute path of the run folder as the hosts of the cluster see it")


def _elsewhere(config: Config) -> Iterator[Problem]:
    """Values that mean something else, or nothing, in a copy of the working tree on another machine."""
    if config.ray.address is None:
        yield Problem(
            key="ray.address",
            value=None,
            message="the submitted run would start a Ray cluster of its own on the head",
            fix="add the overlay clusters/ray, or ray.address=auto",
        )
    for key, value in (("run.dir", config.run.dir), ("model.path", config.model.path)):
        if not PurePosixPath(value).is_absolute():
            yield Problem(
                key=key,
                value=value,
                message="it is relative, and the job runs in a temporary copy of the working tree",
                fix="give the absolute path of a folder on the file system that all hosts share",
            )


def _shipped(overlay: str) -> str:
    """The overlay as it is named inside the working tree. Raises ConfigError if it lies outside."""
    path = Path(overlay)
    if not path.is_file():
        return overlay  # the name of one that comes with r1ray
    try:
        return str(path.resolve().relative_to(Path.cwd().resolve()))
    except ValueError as e:
        raise ConfigError(f"{overlay} lies outside the working tree {Path.cwd()}, which is all that is shipped") from e
