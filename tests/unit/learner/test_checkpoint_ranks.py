"""Checkpoints of several ranks: each writes and reads its own files, and any number of ranks can read them, once."""

from __future__ import annotations

import errno
import json
import re
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from learner import checkpoint, shard_file
from learner.shard_file import PieceReader, read_tensors
from learner.shards import write_shards
from r1ray.config.schema import Config
from r1ray.errors import DiskFull, InfrastructureError, IntegrityError
from r1ray.run.checkpoints import MANIFEST, defect, fingerprints
from tests.unit.rank_support import FakeEngine, ThreadRanks, complete, on_ranks

SHAPES: dict[str, tuple[int, ...]] = {"weight/a": (7, 5), "exp_avg/a": (7, 5), "weight/b": (2,), "weight/scalar": ()}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_file, "CHUNK_BYTES", 16)


def save(folder: Path, step: int, ranks: int, *, sharded: bool = True) -> list[Any]:
    def on_rank(each: ThreadRanks) -> None:
        engine = FakeEngine(each.rank, each.size, SHAPES, sharded=sharded)
        engine.fill(step)
        checkpoint.save(
            folder / f"step_{step:06d}",
            engine=engine,  # type: ignore[arg-type]
            reference=None,
            policy_version=step,
            rng=torch.arange(ranks * 3, dtype=torch.uint8).view(ranks, 3),
            run_id="run-1",
            config=Config(),
            ranks=each,
        )

    return on_ranks(ranks, on_rank)


def load(folder: Path, ranks: int, *, sharded: bool = True, shapes: Any = None) -> list[Any]:
    """(what was loaded, the engine) of each rank, or its error."""

    def on_rank(each: ThreadRanks) -> Any:
        engine = FakeEngine(each.rank, each.size, shapes or SHAPES, sharded=sharded)
        found = checkpoint.load_latest(
            folder,
            engine=engine,
            reference=None,
            run_id="run-1",
            ranks=each,  # type: ignore[arg-type]
        )
        return found, engine

    return on_ranks(ranks, on_rank)


class Watched:
    """Bytes that were read of each file, and values that were sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: Counter[str] = Counter()
        self.shared = 0
        read_into, share = PieceReader._read_into, ThreadRanks.share

        def count(reader: PieceReader, buffer: memoryview) -> None:
            self.read[reader._name] += len(buffer)
            read_into(reader, buffer)

        def send(ranks: ThreadRanks, values: Any, source: int) -> Any:
            self.shared += len(values) if ranks.rank == source else 0
            return share(ranks, values, source)

        monkeypatch.setattr(PieceReader, "_read_into", count)
        monkeypatch.setattr(ThreadRanks, "share", send)


@pytest.mark.parametrize("sharded", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("ranks", [(1, 1), (2, 2), (3, 3), (3, 2), (2, 3), (1, 5), (5, 1), (4, 2)])
def test_any_number_of_ranks_reads_each_byte_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: tuple[int, int], sharded: tuple[bool, bool]
) -> None:
    save(tmp_path, 7, ranks[0], sharded=sharded[0])
    path = tmp_path / "step_000007"
    assert defect(path) is None
    seen = Watched(monkeypatch)
    for rank, (found, engine) in enumerate(load(tmp_path, ranks[1], sharded=sharded[1])):
        assert engine.holds(7), rank
        assert (found.path, found.policy_version, found.warnings) == (path, 7, [])
        assert found.rng == [bytes([3 * r, 3 * r + 1, 3 * r + 2]) for r in range(ranks[0])]
    seen.read.pop("rng.safetensors")
    assert seen.read == {p.name: p.stat().st_size for p in path.glob("state-*")}
    if sharded == (True, True) and ranks[0] == ranks[1]:
        assert seen.shared == 0  # each rank needs its own file only
    for name, tensor in read_tensors(sorted(path.glob("state-*"))):
        assert torch.equal(tensor, complete(SHAPES, 7)[name])  # as an export reads it


def test_each_rank_writes_its_share(tmp_path: Path) -> None:
    for sharded in (True, False):
        shutil.rmtree(tmp_path)
        save(tmp_path, 1, 4, sharded=sharded)
        stored = [load_file(p) for p in sorted(tmp_path.glob("step_000001/state-*"))]
        values = [sum(values.numel() for values in of_rank.values()) for of_rank in stored]
        assert sum(values) == 7 * 5 * 2 + 2 + 1
        assert max(values) <= 9 * 2 + 1 + 1


@pytest.mark.parametrize("torn", [1, 2, 3])
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_changed_byte_in_any_file_sends_all_ranks_to_the_one_before(tmp_path: Path, torn: int, ranks: int) -> None:
    save(tmp_path, 5, 3)
    save(tmp_path, 10, 3)
    file = tmp_path / "step_000010" / f"state-{torn:05d}.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    for found, engine in load(tmp_path, ranks):
        assert engine.holds(5)
        assert found.warnings == [f"checkpoint step_000010 skipped: {file.name} does not match the manifest"]


def test_a_damaged_header_is_a_defect_too(tmp_path: Path) -> None:
    save(tmp_path, 5, 2)
    save(tmp_path, 10, 2)
    file = tmp_path / "step_000010" / "state-00002.safetensors"
    file.write_bytes(b"\xff" * file.stat().st_size)
    for found, engine in load(tmp_path, 2):
        assert engine.holds(5)
        assert "state-00002.safetensors cannot be read" in found.warnings[0]


@pytest.mark.parametrize("ranks", [1, 2])
def test_any_changed_byte_is_found_by_the_name_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: int
) -> None:
    """In headers and manifest too. The checkpoint before is loaded; as it was written by two ranks, by both ways."""
    monkeypatch.setattr(shard_file, "CHUNK_BYTES", 100)  # two or three chunks a file: each costs the change of a thread
    save(tmp_path, 5, 2)
    save(tmp_path, 10, 2)
    for file in sorted((tmp_path / "step_000010").iterdir()):
        data = file.read_bytes()
        names = "manifest|is missing|expected format" if file.name == MANIFEST else re.escape(file.name)
        for at in [*range(0, min(len(data), 800), 41 if file.suffix == ".json" else 3), len(data) - 1]:
            changed = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
            if changed[at : at + 1] == b"2" and data[:at].endswith(b'"format": '):
                continue  # that format is read, too
            file.write_bytes(changed)
            for found, engine in load(tmp_path, ranks):
                assert (found.policy_version, engine.holds(5)) == (5, True), (file.name, at)
                (warning,) = found.warnings
                assert re.search(names, warning), (file.name, at, warning)
        file.write_bytes(data)
    assert load(tmp_path, ranks)[0][0].policy_version == 10


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("sharded", [True, False])
def test_checkpoints_of_format_2_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: int, sharded: bool
) -> None:
    """Rank 0 had written whole tensors, in files of up to 4 GiB."""
    save(tmp_path, 9, 1)
    path = tmp_path / "step_000009"
    (path / "state-00001.safetensors").unlink()
    monkeypatch.setattr("learner.shards.SHARD_BYTES", 150)
    write_shards(path, "state", iter(complete(SHAPES, 9).items()))
    save_file({"rng": torch.zeros(2, 3, dtype=torch.uint8)}, path / "rng.safetensors")
    assert len(list(path.glob("state-*"))) == 3
    files = fingerprints([p for p in path.iterdir() if p.name != MANIFEST])
    (path / MANIFEST).write_text(json.dumps({"format": 2, "files": files}))
    seen = Watched(monkeypatch)
    for found, engine in load(tmp_path, ranks, sharded=sharded):
        assert engine.holds(9)
        assert found.rng == [bytes(3)] * 2
    assert {n: size for n, size in seen.read.items() if n.startswith("state-")} == {
        p.name: p.stat().st_size for p in path.glob("state-*")
    }


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({**SHAPES, "weight/new": (3,)}, "lacks 1 tensors of this model, weight/new"),
        ({n: s for n, s in SHAPES.items() if n != "weight/b"}, r"weight/b \(2,\) is not a tensor of this model"),
        ({**SHAPES, "weight/a": (5, 7)}, r"weight/a \(7, 5\) is not a tensor of this model"),
    ],
)
def test_every_rank_refuses_a_checkpoint_of_another_model(tmp_path: Path, shapes: Any, message: str) -> None:
    save(tmp_path, 3, 2)
    for error in load(tmp_path, 2, shapes=shapes):
        assert isinstance(error, IntegrityError)
        assert re.search(message, str(error)), error


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, DiskFull), (errno.EIO, (InfrastructureError, OSError))])
def test_if_one_rank_cannot_write_all_say_so_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int, code: int, kind: Any
) -> None:
    write = shard_file.write_pieces

    def failing(path: Path, *args: Any) -> Any:
        if path.name == f"state-{rank + 1:05d}.safetensors":
            raise OSError(code, "broken")
        return write(path, *args)

    monkeypatch.setattr(shard_file, "write_pieces", failing)
    errors = save(tmp_path, 3, 3)
    assert all(isinstance(error, kind) for error in errors), errors
    assert list(tmp_path.iterdir()) == []
    assert f"rank {rank}" in str(errors[0]) or code == errno.ENOSPC
    monkeypatch.undo()
    assert save(tmp_path, 3, 3) == [None] * 3


def test_a_rank_that_does_not_see_the_folder_of_rank_0_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_dir = Path.is_dir
    hidden = lambda path: is_dir(path) and threading.current_thread().name != "rank 1"  # noqa: E731
    monkeypatch.setattr(Path, "is_dir", hidden)
    for error in save(tmp_path, 3, 2):
        assert isinstance(error, InfrastructureError)
        assert re.search(
            r"learner rank 1 does not see .*step_000003.*, which rank 0 made: run.dir must be one", str(error)
        )
    assert list(tmp_path.iterdir()) == []


def test_ranks_whose_folder_is_not_the_same_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = shard_file.write_pieces

    def elsewhere(path: Path, *args: Any) -> Any:
        there = tmp_path / "other" / path.name if "00002" in path.name else path
        there.parent.mkdir(exist_ok=True)
        return write(there, *args)

    monkeypatch.setattr(shard_file, "write_pieces", elsewhere)
    for error in save(tmp_path / "run", 3, 2):
        assert isinstance(error, InfrastructureError)
        assert "state-00002.safetensors has None bytes here" in str(error)
        assert "run.dir must be one folder" in str(error)
    assert list((tmp_path / "run").iterdir()) == []


def test_an_existing_checkpoint_is_refused_on_every_rank(tmp_path: Path) -> None:
    save(tmp_path, 3, 2)
    for error in save(tmp_path, 3, 2):
        assert isinstance(error, IntegrityError)
        assert "exists already" in str(error)
