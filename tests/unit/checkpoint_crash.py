"""Kills the writers of checkpoints and records at every point: `python -m tests.unit.checkpoint_crash MODE FOLDER`.

A process of its own, because it forks: each child goes through the same life of a folder until the fault of its turn.
The parent then looks at what is left, and continues from it. Modes:

    checkpoint-kill, record-kill   SIGKILL before the n-th open, mkdir, fsync, rename, unlink or rmdir
    checkpoint-torn                the kernel kills the process (SIGXFSZ) at the write that passes byte n of a file
    checkpoint-fail, record-fail   the n-th such call that writes raises: once that the disk is full, once that it is broken
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
from typing import Any, Protocol

import torch

from learner import checkpoint
from learner.files import ASIDE
from r1ray.config.schema import Config
from r1ray.errors import DiskFull, R1RayError
from r1ray.run.checkpoints import find_latest, step_of
from r1ray.util.files import write_atomic

RUN, CONFIG = "run-1", Config()
Fault = Callable[[], None]
WRITES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "fsync"}


class Engine:
    applied_steps = 3

    def state(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield "weight/w", torch.arange(2000.0)
        yield "exp_avg/w", torch.ones(2000)


class Life(Protocol):
    """Calls in their order; `states[n]` is what is to be seen after n of them."""

    calls: Sequence[Callable[[Path], object]]
    states: Sequence[object]

    def seen(self, folder: Path) -> object:
        """What a reader makes of the folder; asserts that it is in order."""

    def go_on(self, folder: Path) -> None:
        """What a new process does with the folder; asserts that it works and leaves nothing behind."""


class Checkpoints:
    """Saved, pruned, damaged and replaced, gone back behind. Seen: the newest whole one."""

    def __init__(self) -> None:
        def save(step: int) -> Callable[[Path], object]:
            return lambda folder: checkpoint.save(
                folder / f"step_{step:06d}",
                engine=Engine(),  # type: ignore[arg-type]
                reference=None,
                policy_version=step,
                rng=torch.zeros(2, 5, dtype=torch.uint8),
                run_id=RUN,
                config=CONFIG,
                writer=True,
            )

        def prune(folder: Path) -> object:
            return checkpoint.prune(folder, keep=1, keep_every=None)

        def damage(folder: Path) -> None:
            os.truncate(folder / "step_000030" / "state-00001.safetensors", 50)

        self.save = save
        life: list[tuple[Callable[[Path], object], int]] = [
            (save(10), 10),
            (save(20), 20),
            (prune, 20),
            (save(30), 30),
            (damage, 20),
            (save(30), 30),
            (lambda folder: checkpoint.discard_newer(folder, 20), 20),
            (save(40), 40),
            (prune, 40),
        ]
        self.calls = [call for call, _ in life]
        self.states = [None, *(state for _, state in life)]

    def seen(self, folder: Path) -> object:
        found = find_latest(folder, run_id=RUN)
        # Nothing but what was damaged on purpose may look like a checkpoint and not be one.
        assert all("step_000030 skipped: state-00001" in warning for warning in found.warnings), found.warnings
        return None if found.path is None else step_of(found.path)

    def go_on(self, folder: Path) -> None:
        newest = find_latest(folder).path
        step = 0 if newest is None else step_of(newest)
        checkpoint.discard_newer(folder, step)
        self.save(step + 10)(folder)
        assert self.seen(folder) == step + 10
        checkpoint.prune(folder, keep=1, keep_every=None)
        assert [path.name for path in folder.iterdir()] == [f"step_{step + 10:06d}"]


class Records:
    """A small file that is replaced. Seen: its content."""

    calls = tuple(lambda folder, n=n: write_atomic(folder / "record", b"%d" % n * 1000) for n in range(3))
    states = (None, *(b"%d" % n * 1000 for n in range(3)))

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


def live(life: Life, folder: Path, say: Callable[[int], object]) -> None:
    for n, call in enumerate(life.calls):
        call(folder)
        say(n + 1)


def in_child(work: Callable[[Callable[[int], object]], None]) -> tuple[int, int]:
    """The signal that killed the child (0: it came to the end), and the last number that it said."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            work(lambda n: os.write(writing, bytes([n])))
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        acknowledged = said.read()
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"the child failed with {status}"
    return (os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0), max(acknowledged, default=0)


def kill_at_call(n: int, folder: Path) -> None:
    left = itertools.count(n, -1)
    watch_calls(folder, lambda _: os.kill(os.getpid(), signal.SIGKILL) if next(left) == 0 else None)


def kill_at_byte(n: int, _: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))


def killed_everywhere(life: Life, folder: Path, arm: Callable[[int, Path], None], points: Iterator[int]) -> int:
    """Kill at every call and return the number of kills.

    Each leaves the state before or after the call, and work continues.
    """
    killed = 0
    for point in points:
        folder.mkdir()

        def work(say: Callable[[int], object], point: int = point) -> None:
            arm(point, folder)
            live(life, folder, say)

        died, done = in_child(work)
        seen = life.seen(folder)
        assert seen in life.states[done : done + 2], f"kill {point}: {seen!r} after {done} calls"
        life.go_on(folder)
        shutil.rmtree(folder)
        if not died:
            break
        killed += 1
    return killed


def failing_everywhere(life: Life, folder: Path, code: int) -> int:
    """How many failures there were. After each, nothing of the call is left, and it succeeds when it is made again."""
    for point in itertools.count():
        folder.mkdir()
        left, failed = itertools.count(point, -1), []

        def event(name: str, left: Iterator[int] = left, failed: list[str] = failed) -> None:
            if name != "open" and next(left) == 0:
                failed.append(name)
                raise OSError(code, os.strerror(code))

        def work(
            say: Callable[[int], object], event: Callable[[str], None] = event, failed: list[str] = failed
        ) -> None:
            watch_calls(folder, event)
            for n, call in enumerate(life.calls):
                try:
                    call(folder)
                except (OSError, R1RayError) as e:
                    if not failed:
                        raise
                    check_failure(life, folder, n, e, code)
                    call(folder)
                assert life.seen(folder) == life.states[n + 1], (failed, n)
            say(len(failed))

        _, failures = in_child(work)
        life.go_on(folder)
        shutil.rmtree(folder)
        if not failures:
            return point
    raise AssertionError("unreachable")


def check_failure(life: Life, folder: Path, n: int, error: Exception, code: int) -> None:
    seen = life.seen(folder)
    assert seen in life.states[n : n + 2], (n, seen, error)
    if isinstance(life, Checkpoints) and seen != life.states[n + 1]:
        assert isinstance(error, DiskFull) or code != errno.ENOSPC or not is_save(life, n), error
    if isinstance(life, Checkpoints) and is_save(life, n):
        assert seen == life.states[n], f"call {n} failed, and {seen} is there: {error}"
        assert not [path for path in folder.iterdir() if path.name.startswith(ASIDE)], error


def is_save(life: Checkpoints, n: int) -> bool:
    return n in (0, 1, 3, 5, 7)


def main(mode: str, folder: Path) -> None:
    what, _, how = mode.partition("-")
    life: Life = Checkpoints() if what == "checkpoint" else Records()
    run = folder / "run"
    run.mkdir()
    live(life, run, lambda n: None)  # imports what it needs, once and for all children
    largest = max(path.stat().st_size for path in run.rglob("*") if path.is_file())
    shutil.rmtree(run)
    if how == "kill":
        found = killed_everywhere(life, run, kill_at_call, itertools.count())
    elif how == "torn":
        found = killed_everywhere(life, run, kill_at_byte, iter(range(0, largest, largest // 30)))
    else:
        found = sum(failing_everywhere(life, run, code) for code in (errno.ENOSPC, errno.EIO))
    print(json.dumps({"faults": found}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
