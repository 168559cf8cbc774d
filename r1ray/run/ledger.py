"""Where the ledger of a run lies: in its run folder, or on a local disk with a copy in the run folder.

writer   the queue actor, on `LedgerPlace.file` of its machine
readers  `find_ledger`: the ledger itself on that machine, its copy on every other one
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from r1ray.config.sections.run import RunConfig
from r1ray.errors import ConfigError
from r1ray.ledger.copies import read_copy
from r1ray.ledger.reader import LedgerReader
from r1ray.ledger.records import LedgerOpened
from r1ray.ledger.storage import COPY_NAME
from r1ray.run.folder import RunFolder
from r1ray.util.files import read_json, write_atomic
from r1ray.util.filesystems import Mount, mount_of
from r1ray.util.formatting import duration

HOME = "ledger.json"
"""In the run folder of a ledger that lies elsewhere: its machine, its path there, and the run folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerPlace:
    """The files of a ledger, on the machine of the queue."""

    file: Path
    run_dir: Path  # absolute
    copy: Path | None  # None: `file` is in the run folder
    copy_every_s: float
    on_network: bool  # whether `file` may be on a network file system

    @classmethod
    def of(cls, run: RunConfig, run_dir: Path, run_id: str) -> LedgerPlace:
        """The place that the configuration gives to the run in `run_dir`."""
        here = run_dir.absolute()
        outside = None if run.ledger_dir is None else Path(run.ledger_dir) / f"{run_id}.sqlite"
        return cls(
            file=RunFolder(here).ledger if outside is None else outside,
            run_dir=here,
            copy=None if outside is None else here / COPY_NAME,
            copy_every_s=run.ledger_copy_every_s,
            on_network=run.ledger_on_network,
        )

    def expanded(self) -> LedgerPlace:
        """The place with `~` replaced by the home of the present user."""
        return replace(self, file=self.file.expanduser())

    def refuse_network(self) -> None:
        """Raise ConfigError if the ledger would be on a network file system of this machine."""
        key = "run.dir" if self.copy is None else "run.ledger_dir"
        problem = network_problem(self.file.parent)
        if problem is not None and not self.on_network:
            raise ConfigError(
                f"{key} = {str(self.file.parent)!r} on {socket.gethostname()}: {problem[0]}; {problem[1]}"
            )


def network_problem(folder: Path, mount: Mount | None = None) -> tuple[str, str] | None:
    """What is wrong with a ledger in `folder`, and the remedy; None if its file system is local."""
    mount = mount or mount_of(folder)
    if mount is None or not mount.network:
        return None
    message = f"holds the ledger and is on {mount}, where SQLite cannot be relied on and commits are slow"
    return (
        message,
        "set run.ledger_dir to a folder on a local disk of the queue's machine, or run.ledger_on_network=true",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLedger:
    """A file that this machine can read the run's ledger from."""

    path: Path
    copied_at: float | None  # None: it is the ledger itself
    home: str  # machine and path of the ledger itself

    def age(self, now: float | None = None) -> str | None:
        """A sentence on the copy and its age; None for the ledger itself."""
        if self.copied_at is None:
            return None
        ago = duration(max(0.0, (time.time() if now is None else now) - self.copied_at))
        return f"read from the copy of the ledger, made {ago} ago (the ledger itself: {self.home})"


def find_ledger(folder: RunFolder) -> FoundLedger | None:
    """The ledger of a run, or its copy if the ledger is on another machine or gone. None before the run has one.

    In a backup of the run folder it is the copy: the ledger belongs to the original, which may have gone on.
    """
    home = read_json(folder.path / HOME) if (folder.path / HOME).exists() else {}
    here = home.get("host") == socket.gethostname() and home.get("run") in (None, str(folder.path.resolve()))
    if here and Path(home["path"]).exists():
        return FoundLedger(path=Path(home["path"]), copied_at=None, home=_text(home))
    if folder.ledger.exists():
        return FoundLedger(path=folder.ledger, copied_at=None, home=str(folder.ledger))
    copy = folder.path / COPY_NAME
    if not copy.exists():
        return None
    return FoundLedger(path=copy, copied_at=read_copy(copy, None).copied_at, home=_text(home))


@contextmanager
def open_ledger(folder: RunFolder) -> Iterator[tuple[LedgerReader, FoundLedger] | None]:
    """A reader of the run's ledger, see `find_ledger`; None before the run has one."""
    found = find_ledger(folder)
    if found is None:
        yield None
        return
    with closing(LedgerReader.open(found.path)) as reader:
        yield reader, found


def record_home(folder: RunFolder, opened: LedgerOpened) -> None:
    """Write down where the ledger is, for readers on other machines."""
    if Path(opened.path) == folder.ledger.absolute():
        (folder.path / HOME).unlink(missing_ok=True)
        return
    home = {"host": opened.host, "path": opened.path, "run": str(folder.path.resolve())}
    write_atomic(folder.path / HOME, json.dumps(home).encode())


def _text(home: dict[str, str]) -> str:
    return f"{home['path']} on {home['host']}" if home else "on an unknown machine"
