"""Checkpoints: everything that a learner needs to continue as if uninterrupted, complete or absent.

    step_000020/
        state-00001.safetensors      what rank 0 holds of the float32 weights and Adam moments; 00002 is of rank 1, ...
        reference-00001.safetensors  its share of the reference policy, if the KL term has one
        rng.safetensors              one row per rank
        trainer.json                 run, policy version, optimiser steps, version of the reference, configuration
        manifest.json                size and SHA-256 of every file; written last

Each rank writes its own files, and hashes them while it writes; rank 0 then puts the folder in place. A resume reads
each byte once: each rank reads its own files, and compares their hashes meanwhile. The files say which part of which
tensor they hold, so a checkpoint loads with any number of ranks and any ZeRO stage (`learner.parts`). Nothing is
pickled. Format 2, in which rank 0 wrote whole tensors, loads the same way.

The policy version determines the rest: it counts the trained steps, so it is the step of the next batch of the ledger,
and the learning rate is a function of it (`learner.schedules`).
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learner.agreement import attempt, by_rank_0, raise_first
from learner.files import ASIDE, begin_aside, commit_aside, remove_whole
from r1ray.config.schema import Config
from r1ray.errors import ConfigError, InfrastructureError, IntegrityError
from r1ray.run.checkpoints import (
    FORMAT,
    MANIFEST,
    TRAINER,
    fingerprints,
    list_checkpoints,
    misplaced,
    read_manifest,
    step_of,
    structural_defect,
)

if TYPE_CHECKING:  # finding and pruning checkpoints needs no torch
    from torch import Tensor

    from learner.engine import Engine
    from learner.group import Ranks
    from learner.parts import Part
    from learner.reference import ReferencePolicy
    from learner.shard_file import PieceReader

RNG = "rng.safetensors"
STATE, REFERENCE = "state", "reference"
ONE_FOLDER = "run.dir must be one folder for the hosts of all learner ranks"


def save(
    folder: Path,
    *,
    engine: Engine,
    reference: ReferencePolicy | None,
    policy_version: int,
    rng: Tensor,
    run_id: str,
    config: Config,
    ranks: Ranks,
) -> None:
    """Write a checkpoint of run `run_id` under `config` to `folder`. A collective; `rng` is [ranks, bytes].

    Replaces an incomplete checkpoint. Raises IntegrityError if `folder` is a complete one, and DiskFull; on every rank,
    and nothing is left behind then.
    """
    trainer = {
        "format": FORMAT,
        "run_id": run_id,
        "policy_version": policy_version,
        "optimizer_steps": engine.applied_steps,
        "reference_version": None if reference is None else reference.version,
        "config": asdict(config),
    }
    parts = {STATE: engine.parts()} | ({} if reference is None else {REFERENCE: reference.parts()})
    aside = Path(by_rank_0(ranks, folder, lambda: str(_begin(folder))))
    written = ranks.gather(attempt(lambda: _write_parts(aside, parts, ranks))[1])

    def finish() -> None:
        try:
            raise_first(folder, written)
            _commit(aside, folder, {n: e for each in written for n, e in each["done"].items()}, trainer, rng)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise

    by_rank_0(ranks, folder, finish)


def _begin(folder: Path) -> Path:
    if folder.exists() and structural_defect(folder) is None:
        raise IntegrityError(f"checkpoint {folder} exists already: nothing was written")
    return begin_aside(folder)


def _write_parts(aside: Path, parts: Mapping[str, Sequence[Part]], ranks: Ranks) -> dict[str, Any]:
    from learner.parts import own_pieces, own_values
    from learner.shard_file import write_pieces

    if not aside.is_dir():
        raise InfrastructureError(f"learner rank {ranks.rank} does not see {aside}, which rank 0 made: {ONE_FOLDER}")
    entries = {}
    for stem, of_stem in parts.items():
        name, own = f"{stem}-{ranks.rank + 1:05d}.safetensors", own_pieces(of_stem, ranks)
        entries[name] = write_pieces(aside / name, [piece for _, piece in own], (own_values(*each) for each in own))
    return entries


def _commit(aside: Path, folder: Path, entries: dict[str, Any], trainer: dict[str, Any], rng: Tensor) -> None:
    from learner.shard_file import write_whole

    for name, entry in entries.items():
        found = (aside / name).stat().st_size if (aside / name).is_file() else None
        if found != entry["size"]:
            raise InfrastructureError(
                f"checkpoint {folder}: {name} has {found} bytes here, its rank wrote {entry['size']}: {ONE_FOLDER}"
            )
    entries = {**entries, RNG: write_whole(aside / RNG, {"rng": rng})}
    (aside / TRAINER).write_text(json.dumps(trainer, indent=1))
    files = {**entries, **fingerprints([aside / TRAINER])}
    (aside / MANIFEST).write_text(json.dumps({"format": FORMAT, "files": files}, indent=1))
    commit_aside(aside, folder)


# -- loading
# ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The checkpoint that `load_latest` has loaded, and the newer ones that it skipped."""

    path: Path | None
    policy_version: int
    rng: list[bytes]  # of each rank of then
    warnings: list[str]


def load_latest(
    checkpoints: Path, *, engine: Engine, reference: ReferencePolicy | None, run_id: str, ranks: Ranks
) -> Loaded:
    """Load the newest complete checkpoint of a folder, if there is one. A collective.

    A hash is compared while its file is loaded; if it is another one, the next older checkpoint is loaded over it.
    Raises IntegrityError if no checkpoint is complete, since starting over would lose them, and for a newest one of
    another run than `run_id` or of another model; ConfigError if a reference policy is needed and there is none.
    """
    warnings: list[str] = []
    names = by_rank_0(ranks, checkpoints, lambda: [path.name for _, path in reversed(list_checkpoints(checkpoints))])
    for path in (checkpoints / name for name in names):
        opened = by_rank_0(ranks, path, partial(_open, path, run_id, reference is not None))
        wrong = opened["defect"] or _load(path, opened, engine, reference, ranks)
        if wrong is None:
            trainer = opened["trainer"]
            rng = [bytes.fromhex(row) for row in opened["rng"]]
            return Loaded(path=path, policy_version=trainer["policy_version"], rng=rng, warnings=warnings)
        warnings.append(f"checkpoint {path.name} skipped: {wrong}")
    if warnings:
        raise IntegrityError(f"no checkpoint in {checkpoints} is complete, nothing was changed: {'; '.join(warnings)}")
    return Loaded(path=None, policy_version=0, rng=[], warnings=[])


def _open(path: Path, run_id: str, needs_reference: bool) -> dict[str, Any]:
    """The small files of a checkpoint, or its defect. Raises IntegrityError and ConfigError as `load_latest` does."""
    from learner.shard_file import read_tensors

    defect = structural_defect(path)
    if defect is None:
        files = read_manifest(path)["files"]
        small = fingerprints([path / name for name in (TRAINER, RNG) if name in files])
        defect = next((f"{name} does not match the manifest" for name in small if small[name] != files[name]), None)
        defect = defect or next((f"{MANIFEST} lacks {n}" for n in (TRAINER, RNG) if n not in files), None)
    if (defect := defect or misplaced(path, step_of(path))) is not None:
        return {"defect": defect}
    trainer = json.loads((path / TRAINER).read_text())
    if trainer["run_id"] != run_id:
        raise IntegrityError(
            f"checkpoint {path} is of run {trainer['run_id']}, not of {run_id}: nothing was changed, move it away"
        )
    if needs_reference and trainer["reference_version"] is None:
        raise ConfigError(
            f"checkpoint {path} has no reference policy: set algorithm.kl_coefficient=0 and "
            "hacking_monitor.max_kl=null, as when it was written"
        )
    ((_, rng),) = read_tensors([path / RNG])
    return {"defect": None, "files": files, "trainer": trainer, "rng": [row.numpy().tobytes().hex() for row in rng]}


def _load(
    path: Path, opened: Mapping[str, Any], engine: Engine, reference: ReferencePolicy | None, ranks: Ranks
) -> str | None:
    """Load the files of an opened checkpoint; the defect of one of them, or None. A collective."""
    from learner.shard_file import PieceReader

    wanted = {STATE: engine.parts()} | ({} if reference is None else {REFERENCE: reference.parts()})
    for stem, parts in wanted.items():
        names = sorted(name for name in opened["files"] if name.startswith(f"{stem}-"))
        mine = names[ranks.rank :: ranks.size]
        with contextlib.ExitStack() as stack:
            readers = [
                stack.enter_context(contextlib.closing(PieceReader(path / name, opened["files"][name])))
                for name in mine
            ]
            wrong = _first_defect(readers, ranks)
            if wrong is None:
                wrong = _load_files(parts, readers, len(names), ranks)
        if wrong is not None:
            return wrong
    engine.follow_parts(applied_steps=opened["trainer"]["optimizer_steps"])
    if reference is not None:
        reference.follow_parts(version=opened["trainer"]["reference_version"])
    return None


def _load_files(parts: Sequence[Part], readers: Sequence[PieceReader], files: int, ranks: Ranks) -> str | None:
    from learner.parts import load_parts

    try:
        load_parts(parts, readers, files, ranks)
    except IntegrityError:  # on every rank: files of other tensors, or headers that have changed
        for reader in readers:
            reader.finish()
        wrong = _first_defect(readers, ranks)
        if wrong is None:
            raise
        return wrong
    return _first_defect(readers, ranks)


def _first_defect(readers: Sequence[PieceReader], ranks: Ranks) -> str | None:
    found = ranks.gather([reader.defect for reader in readers])
    return next((defect for of_rank in found for defect in of_rank if defect is not None), None)


# -- old checkpoints
# ----------------------------------------------------------------------------------------------------


def prune(folder: Path, *, keep: int, keep_every: int | None) -> list[str]:
    """Remove old checkpoints, and what a crash left half-written; returns the removed names.

    Keeps the newest `keep` complete ones (at least one), those of every `keep_every`-th step, and all that are newer
    than the newest complete one. Compares sizes, not hashes: to read the kept ones takes as long as to write them.
    """
    there = list_checkpoints(folder)
    complete = [path for _, path in there if structural_defect(path) is None]
    if not complete:
        return []
    left, doomed = keep - 1, []
    for step, path in reversed([(step, path) for step, path in there if step < step_of(complete[-1])]):
        if left > 0 and path in complete:  # a torn one cannot be resumed from
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
