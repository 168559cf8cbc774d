"""Log lines as JSON, one object per line: {"time", "run", "actor", "pid", "step", "version", "stream", "message"}.

`logging.json` turns them on. What Python code prints or logs becomes a JSON line. Native code writes to the descriptors
themselves, so its last words before a crash, and the stacks of faulthandler, remain plain lines: a converter in between
would lose them.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict


@dataclass(frozen=True, slots=True, kw_only=True)
class LogTarget:
    """Where a process writes its output, and as what. Producer: `launch.cluster`. Consumer: every actor."""

    path: Path
    run_id: str
    actor: str
    as_json: bool


class _Position(TypedDict):
    step: int | None
    version: int | None


_position: _Position = {"step": None, "version": None}
"""Of this process: the step that it trains or serves, and the policy that it holds or serves; None: not known."""


def at(*, step: int | None = None, version: int | None = None) -> None:
    """Record where this process is, for the lines that follow. None: as before."""
    if step is not None:
        _position["step"] = step
    if version is not None:
        _position["version"] = version


def json_line(message: str, *, run_id: str, actor: str, stream: str) -> str:
    """One log line without its end."""
    fields = {
        "time": round(time.time(), 3),
        "run": run_id,
        "actor": actor,
        "pid": os.getpid(),
        **_position,
        "stream": stream,
        "message": message,
    }
    return json.dumps(fields, ensure_ascii=False)


def message_of(line: str) -> str:
    """The message of a line of a log, which may be JSON or plain."""
    if line.startswith("{"):
        try:
            return str(json.loads(line)["message"])
        except (ValueError, KeyError):  # a plain line that begins so
            return line
    return line


class JsonStream(io.TextIOBase):
    """A text stream that writes each complete line to `descriptor` as JSON. Thread-safe."""

    def __init__(self, descriptor: int, target: LogTarget, name: str) -> None:
        self._descriptor = descriptor
        self._target = target
        self._name = name
        self._lock = threading.Lock()
        self._begun = ""  # a line without its end

    def writable(self) -> bool:
        """Always True."""
        return True

    def fileno(self) -> int:
        """The descriptor behind the stream."""
        return self._descriptor

    def write(self, text: str) -> int:
        """Write the complete lines of `text`; keep an incomplete last one."""
        with self._lock:
            *lines, self._begun = (self._begun + text).split("\n")
            for line in lines:
                self._emit(line)
        return len(text)

    def finish(self) -> None:
        """Write the incomplete last line too: the process ends."""
        with self._lock:
            line, self._begun = self._begun, ""
            self._emit(line)

    def _emit(self, line: str) -> None:
        if not line.strip():
            return
        made = json_line(line.rstrip("\r"), run_id=self._target.run_id, actor=self._target.actor, stream=self._name)
        os.write(self._descriptor, made.encode("utf-8", "backslashreplace") + b"\n")


def redirect(target: LogTarget) -> None:
    """Redirect the output of this process to `target`."""
    descriptor = os.open(target.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    if target.as_json:
        sys.stdout, sys.stderr = JsonStream(1, target, "stdout"), JsonStream(2, target, "stderr")
