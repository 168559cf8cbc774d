"""Kills the copying and the restoring of a ledger at every point: `python -m tests.unit.ledger_copy_crash MODE FOLDER`.

A process of its own, because it forks. Modes:

    copy      SIGKILL before the n-th line of `write_copy` and of what it calls in its module
    bytes     the kernel kills the process (SIGXFSZ) at the write that passes byte n of the copy
    restore   SIGKILL before the n-th line of `provide`, which restores a lost ledger from its copy
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

from r1ray.ledger import Ledger, LedgerReader, audit, copies, provide
from r1ray.ledger.copies import read_copy, write_copy
from r1ray.ledger.storage import COPY_NAME
from tests.unit.ledger_support import RUN, Clock, new_ledger, payload, rules, train

Arm = Callable[[], None]
MODULES = {copies.__file__, provide.__file__}


def kill_at_line(n: int) -> Arm:
    left = n

    def line(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in MODULES:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return line

    return lambda: sys.settrace(line)


def kill_at_byte(n: int) -> Arm:
    def arm() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))

    return arm


def died(work: Callable[[], object], arm: Arm) -> bool:
    """Whether the fault killed a child that does `work`."""
    child = os.fork()
    if child == 0:
        arm()
        work()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"the child failed with {status}"
    return os.WIFSIGNALED(status)


def states(path: Path) -> dict[str, str]:
    with closing(LedgerReader.open(path)) as reader:
        return {g.group_id: g.state for g in reader.groups()}


def lives(folder: Path) -> tuple[Path, Path]:
    """A ledger with an older copy in the run folder: the folder of the ledger, and the run folder."""
    local, run = folder / "local", folder / "run"
    local.mkdir()
    run.mkdir()
    clock = Clock()
    with closing(new_ledger(local, clock)) as ledger:
        train(ledger, 1)
        ledger.stamp_copy()
        write_copy(local / "ledger.sqlite", run / COPY_NAME, RUN)
        clock.now += 60
        train(ledger, 2)
        ledger.lease("w0", 3, 1)
        ledger.stamp_copy()
    return local, run


def kill_copies(folder: Path, mode: str) -> int:
    local, run = lives(folder)
    source, target = local / "ledger.sqlite", run / COPY_NAME
    earlier, old = target.read_bytes(), read_copy(target, RUN, check=True)
    faults = map(kill_at_line, count()) if mode == "copy" else byte_faults(source)
    killed = 0
    for first in (False, True):
        for arm in faults if mode == "copy" and not first else list(byte_faults(source)):
            target.write_bytes(earlier)
            if first:  # there is no earlier copy
                target.unlink()
            was_killed = died(lambda: write_copy(source, target, RUN), arm)
            killed += was_killed
            if target.exists():
                found = read_copy(target, RUN, check=True)
                assert found.copied_at in (old.copied_at, old.copied_at + 60)
            else:
                assert first
            if not was_killed:
                break
            assert write_copy(source, target, RUN).bound_steps == 3
            assert [p.name for p in run.iterdir()] == [COPY_NAME], "a draft is left"
            assert states(target) == states(source)
    return killed


def byte_faults(source: Path) -> Iterator[Arm]:
    size = source.stat().st_size
    yield from (kill_at_byte(n) for n in range(0, size, size // 12))


def kill_restores(folder: Path) -> int:
    _, run = lives(folder)
    copies.PAGES = 1000  # one step
    lost, wanted = folder / "lost", states(run / COPY_NAME)
    for n in count():
        file = lost / "ledger.sqlite"
        was_killed = died(lambda: provide.provide(file, run, rules(), RUN), kill_at_line(n))  # noqa: B023
        provide.provide(file, run, rules(), RUN)
        assert states(file) == wanted
        report = audit(file, [1])
        assert report.ok, report.violations
        with closing(Ledger.open(file, run_id=RUN)) as ledger:
            train(ledger, 1)
        shutil.rmtree(lost)
        if not was_killed:
            return n
    raise AssertionError


def main(mode: str, folder: Path) -> None:
    copies.PAUSE_S = 0.0
    copies.PAGES = 3
    copies.PAGES_BETWEEN_SYNCS = 8
    assert payload("0-1")  # imports what a child would import
    killed = kill_restores(folder) if mode == "restore" else kill_copies(folder, mode)
    print(json.dumps({"faults": killed}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
