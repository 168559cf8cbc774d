"""Checkpoints: everything that a learner needs to continue as if uninterrupted, complete or absent.

    step_000020/
        state-00001.safetensors      float32 weights and Adam moments by parameter name, whole tensors
        reference-00001.safetensors  the reference policy, if the KL term has one
        rng.safetensors              one row per rank
        trainer.json                 run, policy version, optimiser steps, version of the reference, configuration
        manifest.json                size and SHA-256 of every file; written last

The tensors are complete, not shards of ranks, so a checkpoint loads with any number of ranks and any ZeRO stage, and
without pickle, which DeepSpeed's own format needs. The cost: rank 0 writes everything, one tensor at a time.

The policy version determines the rest: it counts the trained steps, so it is the step of the next batch of the ledger,
and the learning rate is a function of it (`learner.schedules`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learner.files import ASIDE, remove_whole, write_aside
from r1ray.config.schema import Config
from r1ray.errors import ConfigError, IntegrityError
from r1ray.run.checkpoints import (
    FORMAT,
    MANIFEST,
    TRAINER,
    defect,
    find_latest,
    fingerprints,
    list_checkpoints,
    step_of,
)

if TYPE_CHECKING:  # finding and pruning checkpoints needs no torch
    from torch import Tensor

    from learner.engine import Engine
    from learner.reference import ReferencePolicy


def save(
    folder: Path,
    *,
    engine: Engine,
    reference: ReferencePolicy | None,
    policy_version: int,
    rng: Tensor,
    run_id: str,
    config: Config,
    writer: bool,
) -> None:
    """Write a checkpoint of run `run_id` under `config` to `folder`. A collective; `rng` is [ranks, bytes].

    The `writer` writes; it replaces an incomplete checkpoint. Raises IntegrityError if `folder` is a complete one. An
    error leaves nothing behind.
    """
    streams = {"state": engine.state()}
    if reference is not None:
        streams["reference"] = reference.state()
    trainer = {
        "format": FORMAT,
        "run_id": run_id,
        "policy_version": policy_version,
        "optimizer_steps": engine.applied_steps,
        "reference_version": None if reference is None else reference.version,
        "config": asdict(config),
    }
    try:
        if writer:
            _write(folder, streams, trainer, rng)
    finally:  # the other ranks are in the same collectives, to the end
        for stream in streams.values():
            for _ in stream:
                pass


def _write(
    folder: Path, streams: dict[str, Iterator[tuple[str, Tensor]]], trainer: dict[str, Any], rng: Tensor
) -> None:
    from safetensors.torch import save_file

    from learner.shards import write_shards

    if folder.exists() and defect(folder) is None:
        raise IntegrityError(f"checkpoint {folder} exists already: nothing was written")
    with write_aside(folder) as aside:
        for stem, stream in streams.items():
            write_shards(aside, stem, stream)
        save_file({"rng": rng}, aside / "rng.safetensors")
        (aside / TRAINER).write_text(json.dumps(trainer, indent=1))
        files = fingerprints(sorted(aside.iterdir()))
        (aside / MANIFEST).write_text(json.dumps({"format": FORMAT, "files": files}, indent=1))


def load(folder: Path, *, engine: Engine, reference: ReferencePolicy | None, run_id: str) -> tuple[int, Tensor]:
    """Load what `save` wrote, on every rank; returns (policy version, rng [ranks that saved it, bytes]). A collective.

    `folder` must come from `find_latest`, which has checked all hashes, so that a large checkpoint is read only once.
    Raises IntegrityError for a checkpoint of another run than `run_id` or of another model, ConfigError if a reference
    policy is needed and the checkpoint has none.
    """
    from safetensors.torch import load_file

    from learner.shards import read_shards

    trainer = json.loads((folder / TRAINER).read_text())
    if trainer["run_id"] != run_id:
        raise IntegrityError(
            f"checkpoint {folder} is of run {trainer['run_id']}, not of {run_id}: nothing was changed, move it away"
        )
    if reference is not None and trainer["reference_version"] is None:
        raise ConfigError(
            f"checkpoint {folder} has no reference policy: set algorithm.kl_coefficient=0 and "
            "hacking_monitor.max_kl=null, as when it was written"
        )
    engine.load_state(read_shards(folder, "state"), applied_steps=trainer["optimizer_steps"])
    if reference is not None:
        reference.load_state(read_shards(folder, "reference"), version=trainer["reference_version"])
    return trainer["policy_version"], load_file(folder / "rng.safetensors")["rng"]


def prune(folder: Path, *, keep: int, keep_every: int | None) -> list[str]:
    """Remove old checkpoints, and what a crash left half-written; returns the removed names.

    Keeps the newest `keep` complete ones (at least one), those of every `keep_every`-th step, and all that are newer than
    the newest complete one. Reads every file of those that it keeps by count.
    """
    newest = find_latest(folder).path
    if newest is None:
        return []
    left, doomed = keep - 1, []
    for step, path in reversed([(step, path) for step, path in list_checkpoints(folder) if step < step_of(newest)]):
        if left > 0 and defect(path) is None:  # a torn one cannot be resumed from
            left -= 1
        elif not (keep_every and step % keep_every == 0):
            doomed.append(path)
    for path in doomed:
        remove_whole(path)
    leftovers = [path for path in folder.iterdir() if path.name.startswith(ASIDE)]
    for path in leftovers:
        shutil.rmtree(path)
    return [path.name for path in doomed + leftovers]


def discard_newer(folder: Path, policy_version: int) -> list[str]:
    """Remove the checkpoints, complete or not, of policies newer than `policy_version`; returns their names."""
    doomed = [path for step, path in list_checkpoints(folder) if step > policy_version]
    for path in reversed(doomed):  # the newest first: what a crash here leaves behind is still in order
        remove_whole(path)
    return [path.name for path in doomed]
