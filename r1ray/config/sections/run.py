"""Section `run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from r1ray.config.annotations import Doc, NonEmpty, Range


@dataclass
class RunConfig:
    """The run: its name, folder, length and seed."""

    name: Annotated[str, NonEmpty(), Doc("name of the run in reports and logs")] = "run"
    dir: Annotated[str, NonEmpty(), Doc("run folder: everything that the run writes")] = "runs/run"
    ledger_dir: Annotated[
        str | None,
        NonEmpty(),
        Doc(
            "folder of the ledger on a local disk of the queue's machine, absolute or beginning with ~, with copies in "
            "the run folder; null: the run folder"
        ),
    ] = None
    ledger_on_network: Annotated[
        bool, Doc("allow the ledger on a network file system, where SQLite's WAL mode is not supported")
    ] = False
    ledger_copy_every_s: Annotated[
        float, Range(gt=0), Doc("longest time between two copies of a ledger that is not in the run folder")
    ] = 120.0
    steps: Annotated[int, Range(ge=1), Doc("training steps; step t turns policy t into policy t + 1")] = 100
    seed: Annotated[int, Range(ge=0, le=2**32 - 1), Doc("seed of data order, sampling and initialisation")] = 0
    deterministic: Annotated[
        bool,
        Doc("bit-equal results after a resume; needs queue.max_staleness 0, one rollout worker and one reward worker"),
    ] = False
