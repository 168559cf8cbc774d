"""Kills the writers of checkpoints and records at every point: `python -m tests.unit.checkpoint_crash MODE FOLDER`.

A process of its own, because it forks: each child goes through the same life of a folder until the fault of its turn.
The parent then looks at what is left, and continues from it. Modes:

    checkpoint-kill, record-kill   SIGKILL before the n-th open, mkdir, fsync, rename, unlink or rmdir
    checkpoint-torn                the kernel kills the process (SIGXFSZ) at the write that passes byte n of a file
    checkpoint-fail, record-fail   the n-th such call that writes raises: once that the disk is full, once that it is broken

A checkpoint is written by RANKS processes; each fault meets one of them, each of them in turn. The others then lose
their connection, and die too.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from learner import checkpoint
from learner.files import ASIDE
from r1ray.config.schema import Config
from r1ray.errors import DiskFull, R1RayError
from r1ray.run.checkpoints import find_latest, step_of
from r1ray.util.files import write_atomic
from tests.unit.rank_processes import SocketRanks, in_children

if TYPE_CHECKING:  # records need no torch, whose import takes longer than their tests
    from learner.group import Ranks

RUN, CONFIG = "run-1", Config()
Fault = Callable[[], None]
WRITES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "fsync"}


RANKS = 3
SHAPES = {"weight/w": (2000,), "exp_avg/w": (2000,)}


def engine(ranks: Ranks, step: int | None = None) -> Any:
    from tests.unit.rank_support import FakeEngine

    made = FakeEngine(ranks.rank, ranks.size, SHAPES, sharded=True)
    if step is not None:
        made.fill(step)
    return made


def alone() -> Ranks:
    """The only rank."""
    return SocketRanks(0, 1, [])


class Life(Protocol):
    """Calls in their order; `states[n]` is what is to be seen after n of them."""

    calls: Sequence[Callable[[Path, Ranks], object]]
    states: Sequence[object]
    ranks: int

    def is_collective(self, n: int) -> bool:
        """Whether all ranks make call n, or rank 0 alone."""

    def seen(self, folder: Path) -> object:
        """What a reader makes of the folder; asserts that it is in order."""

    def go_on(self, folder: Path) -> None:
        """What a new process does with the folder; asserts that it works and leaves nothing behind."""


class Checkpoints:
    """Saved, pruned, damaged and replaced, gone back behind. Seen: the newest whole one."""

    ranks = RANKS

    def __init__(self) -> None:
        import torch

        def save(step: int) -> Callable[[Path, Ranks], object]:
            return lambda folder, ranks: checkpoint.save(
                folder / f"step_{step:06d}",
                engine=engine(ranks, step),
                reference=None,
                policy_version=step,
                rng=torch.zeros(2, 5, dtype=torch.uint8),
                run_id=RUN,
                config=CONFIG,
                ranks=ranks,
            )

        def prune(folder: Path, _: Ranks) -> object:
            return checkpoint.prune(folder, keep=1, keep_every=None)

        def damage(folder: Path, _: Ranks) -> None:
            os.truncate(folder / "step_000030" / "state-00001.safetensors", 50)

        self.save = save
        life: list[tuple[Callable[[Path, Ranks], object], int]] = [
            (save(10), 10),
            (save(20), 20),
            (prune, 20),
            (save(30), 30),
            (damage, 20),
            (save(30), 30),
            (lambda folder, _: checkpoint.discard_newer(folder, 20), 20),
            (save(40), 40),
            (prune, 40),
        ]
        self.calls = [call for call, _ in life]
        self.states = [None, *(state for _, state in life)]

    def is_collective(self, n: int) -> bool:
        return n in (0, 1, 3, 5, 7)

    def seen(self, folder: Path) -> object:
        found = find_latest(folder, run_id=RUN)
        # Nothing but what was damaged on purpose may look like a checkpoint and not be one.
        assert all("step_000030 skipped: state-00001" in warning for warning in found.warnings), found.warnings
        return None if found.path is None else step_of(found.path)

    def go_on(self, folder: Path) -> None:
        """By another number of ranks."""
        loaded = engine(alone())
        found = checkpoint.load_latest(folder, engine=loaded, reference=None, run_id=RUN, ranks=alone())
        step = found.policy_version
        assert found.path is None or loaded.holds(step)
        checkpoint.discard_newer(folder, step)
        self.save(step + 10)(folder, alone())
        assert self.seen(folder) == step + 10
        checkpoint.prune(folder, keep=1, keep_every=None)
        assert [path.name for path in folder.iterdir()] == [f"step_{step + 10:06d}"]


class Records:
    """A small file that is replaced. Seen: its content."""

    ranks = 1
    calls = tuple(lambda folder, _, n=n: write_atomic(folder / "record", b"%d" % n * 1000) for n in range(3))
    states = (None, *(b"%d" % n * 1000 for n in range(3)))

    def is_collective(self, n: int) -> bool:
        return True

    def seen(self, folder: Path) -> object:
        path = folder / "record"
        return path.read_bytes() if path.exists() else None

    def go_on(self, folder: Path) -> None:
        write_atomic(folder / "record", b"new")
        assert self.seen(folder) == b"new"


def watch_calls(folder: Path, event: Callable[[str], None]) -> None:
    """Have `event` called, by name, before every call of this process that touches the disk; it may raise. For good."""
    fsync = os.fsync

    def told(descriptor: int) -> None:
        event("fsync")
        fsync(descriptor)

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name in WRITES:
            event(name)
        elif name == "open" and str(arguments[0]).startswith(str(folder)):
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            event("open to write" if writes else "open")

    os.fsync = told
    sys.addaudithook(hook)


def live(life: Life, folder: Path, ranks: Ranks, say: Callable[[int], object]) -> None:
    for n, call in enumerate(life.calls):
        if ranks.rank == 0 or life.is_collective(n):
            call(folder, ranks)
            say(n + 1)


def kill_at_call(n: int, folder: Path) -> None:
    left = itertools.count(n, -1)
    watch_calls(folder, lambda _: os.kill(os.getpid(), signal.SIGKILL) if next(left) == 0 else None)


def kill_at_byte(n: int, _: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))


def killed_everywhere(
    life: Life, folder: Path, victim: int, arm: Callable[[int, Path], None], points: Iterator[int]
) -> int:
    """Kill rank `victim` at every call and return the number of kills.

    Each leaves the state before or after the call, and work continues.
    """
    killed = 0
    for point in points:
        folder.mkdir()

        def work(ranks: Ranks, say: Callable[[int], object], point: int = point) -> None:
            if ranks.rank == victim:
                arm(point, folder)
            live(life, folder, ranks, say)

        ended = in_children(life.ranks, work)
        done, seen = max(said for _, said in ended), life.seen(folder)
        assert seen in life.states[done : done + 2], f"rank {victim}, kill {point}: {seen!r} after {done} calls"
        life.go_on(folder)
        shutil.rmtree(folder)
        if not ended[victim][0]:
            break
        killed += 1
    return killed


def failing_everywhere(life: Life, folder: Path, victim: int, code: int) -> int:
    """How many failures there were. After each, nothing of the call is left, and it succeeds when it is made again."""
    for point in itertools.count():
        folder.mkdir()
        left, failed = itertools.count(point, -1), []

        def event(name: str, left: Iterator[int] = left, failed: list[str] = failed) -> None:
            if name != "open" and next(left) == 0:
                failed.append(name)
                raise OSError(code, os.strerror(code))

        def work(
            ranks: Ranks,
            say: Callable[[int], object],
            event: Callable[[str], None] = event,
            failed: list[str] = failed,
        ) -> None:
            if ranks.rank == victim:
                watch_calls(folder, event)
            for n, call in enumerate(life.calls):
                if ranks.rank and not life.is_collective(n):
                    continue
                try:
                    call(folder, ranks)
                except (OSError, R1RayError) as e:
                    if ranks.rank == victim:
                        if not failed:
                            raise
                        check_failure(life, folder, n, e, code)
                    if life.is_collective(n):
                        ranks.gather(None)  # the others wait for that check
                    call(folder, ranks)
                assert ranks.rank or life.seen(folder) == life.states[n + 1], (failed, n)
            say(len(failed))

        ended = in_children(life.ranks, work)
        life.go_on(folder)
        shutil.rmtree(folder)
        if not ended[victim][1]:
            return point
    raise AssertionError("unreachable")


def check_failure(life: Life, folder: Path, n: int, error: Exception, code: int) -> None:
    seen = life.seen(folder)
    assert seen in life.states[n : n + 2], (n, seen, error)
    if isinstance(life, Checkpoints) and seen != life.states[n + 1]:
        assert isinstance(error, DiskFull) or code != errno.ENOSPC or not life.is_collective(n), error
    if isinstance(life, Checkpoints) and life.is_collective(n):
        assert seen == life.states[n], f"call {n} failed, and {seen} is there: {error}"
        assert not [path for path in folder.iterdir() if path.name.startswith(ASIDE)], error


def main(mode: str, folder: Path) -> None:
    what, _, how = mode.partition("-")
    life: Life = Checkpoints() if what == "checkpoint" else Records()
    run = folder / "run"
    run.mkdir()
    for n, call in enumerate(life.calls):  # imports what it needs, once and for all children
        call(run, alone())
        assert life.seen(run) == life.states[n + 1]
    largest = max(path.stat().st_size for path in run.rglob("*") if path.is_file())
    shutil.rmtree(run)
    found = 0
    for victim in range(life.ranks):
        if how == "kill":
            found += killed_everywhere(life, run, victim, kill_at_call, itertools.count())
        elif how == "torn":
            found += killed_everywhere(life, run, victim, kill_at_byte, iter(range(0, largest, largest // 30)))
        else:
            found += sum(failing_everywhere(life, run, victim, code) for code in (errno.ENOSPC, errno.EIO))
    print(json.dumps({"faults": found}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
