"""Checkpoints under other numbers of ranks and ZeRO stages: the same bits, and the bytes that each rank moves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.integration.learner_support import (
    io,
    make_groups,
    make_model,
    make_rank,
    remake,
    run_ranks,
    state_of,
    train_step,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

RUN, STEP, STAGES = "run-1", "step_000001", (0, 1, 2, 3)
NOISE = 60_000
"""Bytes of lists of folders, manifests and messages that a rank reads or writes on the way."""


def changes_of(stage: int) -> dict[str, Any]:
    return {"algorithm__kl_coefficient": 0.1, "learner__micro_batch_tokens": 64, "learner__zero_stage": stage}


def written(rank: int, world_size: int, port: int, model: str, folder: str) -> None:
    learner = make_rank(rank, world_size, port, model, changes_of(3))
    train_step(learner, 0, make_groups(0, seed=5))
    learner.save_checkpoint(Path(folder) / STEP, RUN)
    learner.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("learner") / "model", hidden_size=64, intermediate_size=96)


@pytest.fixture(scope="module")
def folder(model: Path) -> Path:
    """A checkpoint of two ranks under ZeRO 3, with a reference policy."""
    made = model.parent / "checkpoints"
    run_ranks(written, 2, str(model), str(made))
    return made


def moved(work: Any) -> dict[str, int]:
    """Bytes that this process reads and writes meanwhile."""
    before = {key: io(key) for key in ("rchar", "wchar")}
    work()
    return {key: io(key) - start for key, start in before.items()}


def resaved(rank: int, world_size: int, port: int, model: str, folder: str, out: str) -> list[dict[str, Any]]:
    """For each stage: bytes that this rank moves while it loads the checkpoint, saves it, and loads its own."""
    answers: list[dict[str, Any]] = []
    learner = make_rank(rank, world_size, port, model, changes_of(STAGES[0]))
    learner.load_latest(folder, RUN)  # imports code
    learner.save_checkpoint(Path(out) / "first" / STEP, RUN)
    for stage in STAGES:
        remake(learner, model, changes_of(stage))
        own = Path(out) / f"stage{stage}"
        load = moved(lambda: learner.load_latest(folder, RUN))
        save = moved(lambda own=own: learner.save_checkpoint(own / STEP, RUN))
        again = moved(lambda own=own: learner.load_latest(own, RUN))
        answers.append({"load": load["rchar"], "save": save["wchar"], "again": again["rchar"]})
    learner.close()
    return answers


def size_of(files: list[Path]) -> int:
    return sum(path.stat().st_size for path in files)


@pytest.mark.parametrize(("ranks", "format_2"), [(1, True), (2, True), (2, False), (3, False), (4, False)])
def test_the_bits_stay_the_same_and_every_byte_is_moved_once(
    model: Path, folder: Path, tmp_path: Path, ranks: int, format_2: bool
) -> None:
    import torch

    wanted = state_of(folder / STEP)
    if format_2:
        folder = as_format_2(folder / STEP, tmp_path / "old")
    answers = run_ranks(resaved, ranks, str(model), str(folder), str(tmp_path))
    print(json.dumps({"bytes of the checkpoint": size_of(list((folder / STEP).iterdir())), "ranks": answers}))
    for i, stage in enumerate(STAGES):
        out = tmp_path / f"stage{stage}" / STEP
        found = state_of(out)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
        of_stage = [of_rank[i] for of_rank in answers]
        whole, noise = size_of(list((folder / STEP).iterdir())), NOISE * ranks
        assert whole <= sum(of_rank["load"] for of_rank in of_stage) < whole + noise, stage
        new, shares = size_of(list(out.iterdir())), [size_of(list(out.glob(f"*-{r + 1:05d}.*"))) for r in range(ranks)]
        assert max(shares) < new / ranks + NOISE, (stage, shares)
        for rank, (of_rank, share) in enumerate(zip(of_stage, shares, strict=True)):
            # Rank 0 has the small files too.
            least, most = (share, share + NOISE) if rank else (share, new - sum(shares) + share + NOISE)
            assert least <= of_rank["save"] < most, (stage, rank)
            assert least <= of_rank["again"] < most, (stage, rank)


def as_format_2(source: Path, target: Path) -> Path:
    """The checkpoint as rank 0 wrote it in format 2: whole tensors."""
    from learner.shard_file import read_tensors
    from learner.shards import write_shards
    from r1ray.run.checkpoints import MANIFEST, fingerprints

    path = target / STEP
    shutil.copytree(source, path, ignore=shutil.ignore_patterns("state-*", "reference-*", MANIFEST))
    for stem in ("state", "reference"):
        write_shards(path, stem, read_tensors(sorted(source.glob(f"{stem}-*"))))
    files = fingerprints(list(path.iterdir()))
    (path / MANIFEST).write_text(json.dumps({"format": 2, "files": files}))
    return target
