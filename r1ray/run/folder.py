"""The run folder: where everything of a run is, who may write to it, and whether a resume is of the same run.

    create -> locked, run.json written last           (a new run)
    open   -> not locked, for status, verify, report   (any run)
    open, lock, accept_resume                          (train --resume)

The layout is described in docs/run-folder.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

from r1ray import __version__
from r1ray.errors import ConfigError, IntegrityError
from r1ray.run.metrics import jsonable
from r1ray.util.files import read_json, refuse_unwritable, write_atomic

FORMAT = 2
"""Version of the layout and of the names stored in it (configuration keys, events, metrics); others are refused."""

LOCK_PATIENCE_S = 1.0
"""How long taking the lock is tried: `holder` takes it for an instant to see whether it is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What makes a run this run; run.json holds it. A resume with another one is refused."""

    vocab_hash: str  # of the model's tokenizer
    model_hash: str  # of the sizes and weights that training starts from
    config_hash: str  # of the configuration without what may change on a resume, see `r1ray.config.identity`
    run_id: str
    created: float  # seconds since the epoch
    r1ray: str  # version that started the run
    use: str = "train"  # the command that it is a run of

    @classmethod
    def new(cls, *, vocab_hash: str, config_hash: str, model_hash: str, use: str = "train") -> Identity:
        """The identity of a run that starts now."""
        run_id = time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + uuid.uuid4().hex[:6]
        return cls(
            vocab_hash=vocab_hash,
            model_hash=model_hash,
            config_hash=config_hash,
            run_id=run_id,
            created=time.time(),
            r1ray=__version__,
            use=use,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The driver that holds the lock of a run folder."""

    pid: int
    host: str
    since: float  # seconds since the epoch

    def __str__(self) -> str:
        return (
            f"process {self.pid or '?'} on {self.host}, since {time.strftime('%H:%M:%S', time.localtime(self.since))}"
        )


class RunFolder:
    """Paths and records of one run. Writers hold the lock; readers need none.

    Example: `RunFolder.create(Path("runs/a"), yaml, identity)` in one process; a second one with the same path gets
    a ConfigError that names the first one's pid, and nothing in the folder has changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    # --- where things are

    @property
    def run_json(self) -> Path:
        return self.path / "run.json"

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def data(self) -> Path:
        return self.path / "data.json"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.sqlite"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def final(self) -> Path:
        return self.path / "final"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def scale_request(self) -> Path:
        return self.path / "control" / "scale.json"

    # --- beginning

    @classmethod
    def create(cls, path: Path, config_yaml: str, identity: Identity) -> RunFolder:
        """A new run folder, locked. run.json is written last: a folder without it is no run yet and can be used again.

        Raises ConfigError where the folder is in use, holds a run already, or holds other files.
        """
        folder = cls(path)
        folder.refuse_unusable()
        path.mkdir(parents=True, exist_ok=True)
        folder.lock()
        try:
            folder.refuse_begun()  # again: another driver may have been faster
            for sub in (folder.logs, folder.checkpoints, folder.scale_request.parent):
                sub.mkdir(exist_ok=True)
            write_atomic(folder.config, config_yaml.encode())
            write_atomic(folder.run_json, json.dumps({"format": FORMAT, **asdict(identity)}, indent=1).encode())
        except BaseException:
            folder.release()
            raise
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The folder of an existing run, not locked.

        Raises ConfigError where there is none, IntegrityError for a format that this version does not read.
        """
        folder = cls(path)
        if not folder.run_json.exists():
            raise ConfigError(f"{path} is no run folder: it has no run.json")
        folder.identity()
        return folder

    @classmethod
    def set_aside(cls, path: Path) -> Path | None:
        """Rename what is at `path` to the first free of `path`.1, `path`.2, ...; returns the new name, None if nothing is.

        Raises ConfigError where a driver holds its lock.
        """
        if not path.exists():
            return None
        cls(path).refuse_in_use()
        names = (path.with_name(f"{path.name}.{n}") for n in itertools.count(1))
        return path.rename(next(name for name in names if not name.exists()))

    def identity(self) -> Identity:
        """What run.json says. Raises IntegrityError for another format of the run folder or an unreadable file."""
        raw = read_json(self.run_json)
        found = raw.pop("format", None)
        if found != FORMAT:
            raise IntegrityError(
                f"{self.path}: expected run-folder format {FORMAT}, got {found} (written by r1ray"
                f" {raw.get('r1ray', 'of an unknown version')}, this is {__version__}): use the r1ray that began the run,"
                " or begin a new one; `--fresh` keeps this folder under another name"
            )
        try:
            return Identity(**raw)
        except TypeError as e:
            raise IntegrityError(f"{self.run_json} lacks or has unknown fields: {e}") from e

    def refuse_unusable(self) -> None:
        """Raise ConfigError, and write nothing, if no new run can begin here: see `create`."""
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"run.dir = {self.path} is a file; give a folder")
        self.refuse_foreign()
        self.refuse_in_use()
        self.refuse_begun()
        refuse_unwritable(self.path)

    def refuse_begun(self) -> None:
        """Raise ConfigError if the folder holds a run."""
        if self.run_json.exists():
            resume = f"continue it with `r1ray {self.identity().use} --resume {self.path}`"
            raise ConfigError(
                f"run.dir = {self.path} holds a run already; {resume}, keep it aside with --fresh, or change run.dir"
            )

    def refuse_in_use(self) -> None:
        """Raise ConfigError that names the driver that holds the lock, if one does."""
        if (holder := self.holder()) is not None:
            raise ConfigError(f"{self.path} is in use by {holder}; stop it, or give another run.dir")

    def refuse_foreign(self) -> None:
        """Raise ConfigError where a new run would begin among files of something else."""
        ours = {"lock", "config.yaml", "logs", "checkpoints", "control", "problems", "evaluation.json"}
        if self.path.is_dir() and not self.run_json.exists():
            foreign = sorted(p.name for p in self.path.iterdir() if p.name not in ours and not p.name.endswith(".tmp"))
            if foreign:
                raise ConfigError(
                    f"run.dir = {self.path} holds other files ({', '.join(foreign[:5])}); give an empty folder"
                )

    # --- the lock

    def lock(self) -> None:
        """Take the exclusive lock until `release` or the end of this process.

        Raises ConfigError that names the process that holds it; nothing is changed then.
        """
        handle = (self.path / "lock").open("a+", encoding="utf-8")
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while not _try_flock(handle, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                holder = _read_holder(handle)
                handle.close()
                raise ConfigError(f"{self.path} is in use by {holder}; stop it, or give another run.dir")
            time.sleep(0.02)
        handle.truncate(0)
        handle.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}))
        handle.flush()
        self._lock = handle

    def release(self) -> None:
        """Give the lock back, if it is held here."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def holder(self) -> Holder | None:
        """Who holds the lock; None where nobody does, that is: no driver is alive."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            with (self.path / "lock").open("r", encoding="utf-8") as handle:
                if not _try_flock(handle, fcntl.LOCK_SH):
                    return _read_holder(handle)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.release()

    # --- records

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Replace status.json, atomically but without waiting for the disk: the next one comes in a second."""
        write_atomic(self.status, json.dumps(jsonable(status)).encode(), durable=False)

    def request_scale(self, role: str, workers: int) -> None:
        """Ask the driver for `workers` workers of `role`. The driver looks for the request; the last one counts."""
        self.scale_request.parent.mkdir(exist_ok=True)
        request = {**self.read_scale_request(), role: workers}
        write_atomic(self.scale_request, json.dumps(request).encode())

    def clear_requests(self) -> None:
        """Forget what was asked of an earlier driver."""
        self.scale_request.unlink(missing_ok=True)

    def read_scale_request(self) -> dict[str, int]:
        """Role -> workers asked for; empty where nobody asked."""
        return read_json(self.scale_request) if self.scale_request.exists() else {}


def _try_flock(handle: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_holder(handle: IO[str]) -> Holder:
    handle.seek(0)
    try:
        return Holder(**json.loads(handle.read()))
    except (ValueError, TypeError):  # it has the lock, and is about to write who it is
        return Holder(pid=0, host="this or another machine", since=time.time())
