"""The run folder: its paths, its lock, and the identity that a resume is checked against.

    create -> locked, run.json written last           (a new run)
    open   -> not locked, for status, verify, report   (any run)
    open, lock                                         (train --resume)

The layout is described in docs/run-folder.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Self

from r1ray import __version__
from r1ray.errors import ConfigError, IntegrityError
from r1ray.run.identity import RunIdentity
from r1ray.run.lock import LOCK_TIMEOUT_S, Holder, read_holder, try_flock
from r1ray.run.metrics import jsonable
from r1ray.util.files import read_json, refuse_unwritable, write_atomic

FORMAT = 2
"""Version of the layout and of the names stored in it (configuration keys, events, metrics); others are refused."""


BEFORE_RUN_JSON = frozenset(
    (
        "lock",
        "config.yaml",
        "data.json",
        "imports.json",
        "replay.json",
        "logs",
        "checkpoints",
        "control",
        "problems",
        "evaluation.json",
    )
)
"""Entries of a folder whose creation was interrupted before run.json was written."""


class RunFolder:
    """Paths and records of one run. Writers hold the lock; readers do not need it.

    Example: one process calls `RunFolder.create(Path("runs/a"), yaml, identity)`. A second process that does so gets a
    ConfigError with the pid of the first, and nothing in the folder changes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.own: Holder | None = None
        """This process, while it holds the lock."""
        self._lock: IO[str] | None = None

    # --- paths

    @property
    def run_json(self) -> Path:
        """RunIdentity and format of the run."""
        return self.path / "run.json"

    @property
    def config(self) -> Path:
        """Configuration in force."""
        return self.path / "config.yaml"

    @property
    def data(self) -> Path:
        """Rows and digests of the data files."""
        return self.path / "data.json"

    @property
    def replay(self) -> Path:
        """The part of a recorded run that this run trains on, if it is a replay."""
        return self.path / "replay.json"

    @property
    def imports(self) -> Path:
        """Folders in which user-defined modules are searched."""
        return self.path / "imports.json"

    @property
    def ledger(self) -> Path:
        """SQLite file of the queue."""
        return self.path / "ledger.sqlite"

    @property
    def status(self) -> Path:
        """State of the driver, replaced about once a second."""
        return self.path / "status.json"

    @property
    def logs(self) -> Path:
        """Folder with one log per process."""
        return self.path / "logs"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints, one folder each."""
        return self.path / "checkpoints"

    @property
    def final(self) -> Path:
        """Folder of the trained model, in the Hugging Face format."""
        return self.path / "final"

    @property
    def report(self) -> Path:
        """HTML report."""
        return self.path / "report.html"

    @property
    def profile(self) -> Path:
        """Traces and the table of profiled steps, see `r1ray.run.profile`."""
        return self.path / "profile"

    @property
    def control(self) -> Path:
        """Folder of requests to the driver and its answers, see `r1ray.run.requests`."""
        return self.path / "control"

    # --- creation

    @classmethod
    def create(
        cls, path: Path, config_yaml: str, identity: RunIdentity, records: Mapping[str, Mapping[str, Any]] | None = None
    ) -> RunFolder:
        """Create a run folder and lock it. run.json is written last: a folder without it is not a run yet and can be
        reused.

        `records`: names of further JSON files of a run -> their content.

        Raises ConfigError if the folder is in use, contains a run, or contains other files.
        """
        folder = cls(path)
        folder.refuse_unusable()
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)  # transcripts, weights and messages of a run are its user's
        folder.lock()
        try:
            folder.refuse_begun()  # again: another driver may have been faster
            for sub in (folder.logs, folder.checkpoints, folder.control):
                sub.mkdir(exist_ok=True)
            write_atomic(folder.config, config_yaml.encode())
            for name, content in (records or {}).items():
                write_atomic(path / name, json.dumps(content, indent=1).encode())
            write_atomic(folder.run_json, json.dumps({"format": FORMAT, **asdict(identity)}, indent=1).encode())
        except BaseException:
            folder.release()
            raise
        return folder

    def abandon(self) -> None:
        """Remove all but the lock of a run whose start failed before its first event,
        so that it can be started again.
        """
        self.run_json.unlink(missing_ok=True)  # first: from here on it is not a run
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != "lock":
                entry.unlink()

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open the folder of an existing run, without the lock.

        Raises ConfigError if it is not a run folder, IntegrityError if this version does not read its format.
        """
        folder = cls(path)
        if not folder.run_json.exists():
            raise ConfigError(f"{path} is not a run folder: it has no run.json")
        folder.identity()
        return folder

    @classmethod
    def set_aside(cls, path: Path) -> Path | None:
        """Rename `path` to the first free of `path`.1, `path`.2, ...

        Returns the new path, or None if `path` does not exist.

        Raises ConfigError if a driver holds the lock.
        """
        if not path.exists():
            return None
        cls(path).refuse_in_use()
        names = (path.with_name(f"{path.name}.{n}") for n in itertools.count(1))
        return path.rename(next(name for name in names if not name.exists()))

    def identity(self) -> RunIdentity:
        """Read run.json. Raises IntegrityError for another format of the run folder or an unreadable file."""
        raw = read_json(self.run_json)
        found = raw.pop("format", None)
        if found != FORMAT:
            raise IntegrityError(
                f"{self.path}: expected run-folder format {FORMAT}, got {found} (written by r1ray"
                f" {raw.get('r1ray', 'of an unknown version')}, this is {__version__}): use the r1ray that began the "
                "run,"
                " or begin a new one; `--fresh` keeps this folder under another name"
            )
        try:
            return RunIdentity(**raw)
        except TypeError as e:
            raise IntegrityError(f"{self.run_json} has missing or unknown fields: {e}") from e

    def refuse_unusable(self) -> None:
        """Raise ConfigError, and write nothing, if no new run can begin here: see `create`."""
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"run.dir = {self.path} is a file: give a folder")
        self.refuse_foreign()
        self.refuse_in_use()
        self.refuse_begun()
        refuse_unwritable(self.path)

    def refuse_begun(self) -> None:
        """Raise ConfigError if the folder contains a run."""
        if self.run_json.exists():
            resume = f"continue it with `r1ray {self.identity().use} --resume {self.path}`"
            raise ConfigError(
                f"run.dir = {self.path} contains a run already: {resume}, rename it with --fresh, or change run.dir"
            )

    def refuse_in_use(self) -> None:
        """Raise ConfigError that names the driver that holds the lock, if one does."""
        if (holder := self.holder()) is not None:
            raise ConfigError(f"{self.path} is in use by {holder}: stop it, or give another run.dir")

    def refuse_foreign(self) -> None:
        """Raise ConfigError if the folder contains files that do not belong to a run."""
        if self.path.is_dir() and not self.run_json.exists():
            foreign = sorted(
                p.name for p in self.path.iterdir() if p.name not in BEFORE_RUN_JSON and not p.name.endswith(".tmp")
            )
            if foreign:
                raise ConfigError(
                    f"run.dir = {self.path} contains other files ({', '.join(foreign[:5])}): give an empty folder"
                )

    # --- the lock

    def lock(self) -> None:
        """Take the exclusive lock until `release` or the end of this process.

        Raises ConfigError that names the process that holds it, and changes nothing then.
        """
        handle = (self.path / "lock").open("a+", encoding="utf-8")
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while not try_flock(handle, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                holder = read_holder(handle)
                handle.close()
                raise ConfigError(f"{self.path} is in use by {holder}: stop it, or give another run.dir")
            time.sleep(0.02)
        self.own = Holder(pid=os.getpid(), host=socket.gethostname(), since=time.time())
        handle.truncate(0)
        handle.write(json.dumps(asdict(self.own)))
        handle.flush()
        self._lock = handle

    def release(self) -> None:
        """Release the lock, if this process holds it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = self.own = None

    def holder(self) -> Holder | None:
        """The driver that holds the lock; None if no driver is alive."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            with (self.path / "lock").open("r", encoding="utf-8") as handle:
                if not try_flock(handle, fcntl.LOCK_SH):
                    return read_holder(handle)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.release()

    # --- records

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Replace status.json atomically, without waiting for the disk, because the next one follows in a second."""
        write_atomic(self.status, json.dumps(jsonable(status)).encode(), durable=False)
