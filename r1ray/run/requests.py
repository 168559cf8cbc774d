"""Requests to the driver of a run, and its answers: small files in the run folder, for any host that sees the folder.

    control/<id>.request.json   written by `ask`; the driver removes it before it acts, so that it acts at most once
    control/<id>.answer.json    written by the driver after it acted; the sender removes it

A request names the driver that it is for, so the driver of a later resume never obeys it. A sender that stops waiting
withdraws its request.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from r1ray.errors import ConfigError, DeadlineExceeded, InfrastructureError, IntegrityError
from r1ray.run.folder import RunFolder
from r1ray.run.lock import Holder
from r1ray.util.files import read_json, write_atomic

ANSWER_S = 30.0
"""Seconds that a driver has for its answer. It looks for requests several times a second, except while Ray starts."""

POLL_S = 0.1

_REQUEST = ".request.json"
_ANSWER = ".answer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. Producer: `ask`. Consumer: `r1ray.control.commands`."""

    id: str
    command: str
    arguments: dict[str, Any]
    driver: Holder  # the one that is to answer
    by: str  # who sent it: user@host


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the driver did, or why it refuses."""

    accepted: bool
    message: str
    within_s: float | None = None  # the driver needs up to so many more seconds


def send(folder: RunFolder, command: str, arguments: Mapping[str, Any]) -> Request:
    """Leave a request for the driver of the run. Raises ConfigError if no driver is alive."""
    driver = folder.holder()
    if driver is None:
        raise ConfigError(f"no process is running {folder.path}: see `r1ray status {folder.path}`")
    request = Request(
        id=f"{time.time_ns()}-{uuid.uuid4().hex[:8]}",
        command=command,
        arguments=dict(arguments),
        driver=driver,
        by=f"{getpass.getuser()}@{socket.gethostname()}",
    )
    folder.control.mkdir(exist_ok=True)
    write_atomic(folder.control / (request.id + _REQUEST), json.dumps(asdict(request)).encode())
    return request


def ask(
    folder: RunFolder,
    command: str,
    arguments: Mapping[str, Any],
    *,
    deadline_s: float = ANSWER_S,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], object] = time.sleep,
) -> Answer:
    """Send a request to the driver of the run and wait for its answer.

    Raises ConfigError if no driver is alive or if the driver refuses, DeadlineExceeded if it does not answer, and
    InfrastructureError if it ends first. After the last two, and an exception in the wait, the request is withdrawn if
    the driver has not begun with it; the message says if it has.
    """
    request = send(folder, command, arguments)
    answer, driver = folder.control / (request.id + _ANSWER), request.driver
    until, ended = clock() + deadline_s, False
    try:
        while not answer.exists():
            ended = folder.holder() != driver
            if ended or clock() >= until:
                break
            pause(POLL_S)
    finally:
        withdrawn = _remove(folder.control / (request.id + _REQUEST))
    if answer.exists():  # also one that came with the deadline
        return _accepted(answer)
    begun = "" if withdrawn else "; it had begun with the request, which may have taken effect"
    if ended:
        raise InfrastructureError(
            f"the driver of {folder.path} ended before it answered ({driver}){begun}: see `r1ray status {folder.path}`"
        )
    raise DeadlineExceeded(
        f"the run has not answered within {deadline_s:g} s: its driver is {driver}{begun}. It does not answer while it "
        f"starts Ray; otherwise see `r1ray status {folder.path}`, or on its host send it a signal: kill -TERM "
        f"{driver.pid}"
    )


def pending(folder: RunFolder) -> Iterator[Request]:
    """Take the requests to this process, which holds the lock, in the order in which they were sent; remove others.

    A request is removed from the disk before it is returned.
    """
    for path in sorted(_files(folder, _REQUEST)):
        request = _read(path)
        if _remove(path) and request is not None and request.driver == folder.own:
            yield request


def answer_to(folder: RunFolder, request: Request, answer: Answer) -> None:
    """Tell the sender of `request` what became of it."""
    write_atomic(folder.control / (request.id + _ANSWER), json.dumps(asdict(answer)).encode(), durable=False)


def remove_old(folder: RunFolder) -> None:
    """Remove what earlier drivers and senders left; requests to this process stay."""
    for path in (*_files(folder, _ANSWER), *_files(folder, ".tmp")):
        _remove(path)
    for path in _files(folder, _REQUEST):
        if (request := _read(path)) is None or request.driver != folder.own:
            _remove(path)


def _read(path: Path) -> Request | None:
    """None for a request that was withdrawn, or that another version of r1ray wrote: its sender gets no answer."""
    try:
        raw = read_json(path)
        return Request(**{**raw, "driver": Holder(**raw["driver"])})
    except (IntegrityError, TypeError, KeyError):
        return None


def _files(folder: RunFolder, ending: str) -> list[Path]:
    try:
        names = os.listdir(folder.control)
    except FileNotFoundError:
        return []
    return [folder.control / name for name in names if name.endswith(ending)]


def _remove(path: Path) -> bool:
    """Whether this call removed the file."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _accepted(path: Path) -> Answer:
    answer = Answer(**read_json(path))
    _remove(path)
    if not answer.accepted:
        raise ConfigError(answer.message)
    return answer
