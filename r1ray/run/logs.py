"""Read the logs of a run's processes, from any host that sees the run folder, while they grow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from r1ray.errors import ConfigError
from r1ray.run.folder import RunFolder
from r1ray.util.hints import nearest

_BLOCK = 1 << 16


def log_names(folder: RunFolder) -> list[str]:
    """Names of the processes that have a log: driver, queue, rollout-0, learner-0, ray, ..."""
    return sorted(path.stem for path in folder.logs.glob("*.log"))


class LogReader:
    """Last lines of some logs, then what is added to them; logs that appear later are read from their start.

    Files are opened at every look: a network file system shows what another host has written when a file is opened.
    """

    def __init__(self, folder: RunFolder, actor: str | None, lines: int) -> None:
        """`actor`: one process; None: all. Raises ConfigError if it has no log."""
        names = log_names(folder)
        if actor is not None and actor not in names:
            raise ConfigError(f"no log of {actor!r} in {folder.logs}: {nearest(actor, names)}")
        self._folder = folder
        self._actor = actor
        self._rest: dict[str, bytes] = {}  # of a line that is not complete yet
        self._offsets = {name: _offset_of_last(self._path(name), lines) for name in self._names()}

    def look(self) -> Iterator[tuple[str, str]]:
        """(process, line) of every line that was completed since the last look."""
        for name in self._names():
            try:
                with self._path(name).open("rb") as file:
                    offset = self._offsets.get(name, 0)
                    file.seek(offset)
                    added = file.read()
            except FileNotFoundError:
                continue
            self._offsets[name] = offset + len(added)
            *lines, self._rest[name] = (self._rest.get(name, b"") + added).split(b"\n")
            for line in lines:
                yield name, line.decode(errors="replace")

    def rest(self) -> Iterator[tuple[str, str]]:
        """Last lines without an end, as of processes that were killed."""
        for name, line in self._rest.items():
            if line:
                yield name, line.decode(errors="replace")

    def _names(self) -> Sequence[str]:
        return log_names(self._folder) if self._actor is None else [self._actor]

    def _path(self, name: str) -> Path:
        return self._folder.logs / f"{name}.log"


def _offset_of_last(path: Path, lines: int) -> int:
    """Where the last `lines` lines of a file begin."""
    with path.open("rb") as file:
        end = position = file.seek(0, 2)
        if lines == 0:
            return end
        later = b""
        while position > 0 and later.rstrip(b"\n").count(b"\n") < lines:
            size = min(_BLOCK, position)
            position -= size
            file.seek(position)
            later = file.read(size) + later
    wanted = later.splitlines(keepends=True)[-lines:]
    return end - sum(map(len, wanted))
