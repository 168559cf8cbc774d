"""Run commands on the head of a cluster through the Jobs API of its dashboard, e.g. from the operator's laptop.

    laptop --http, token--> dashboard (tunnel: `ray dashboard`) --> job on the head: python -m r1ray COMMAND

The command works on the run folder there, as if it were typed on the head, so there is one mechanism for all commands.
Every request has a deadline of its own, because the client has none.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import shlex
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from r1ray.errors import ConfigError, DeadlineExceeded, InfrastructureError, R1RayError
from r1ray.launch.ray_session import AUTH_FIX, first_sentence, use_token
from r1ray.util.formatting import one_line

T = TypeVar("T")

ANSWER_S = 8.0
"""Deadline of the first request, for the dashboard's version: a tunnel may be open without a head behind it."""

REQUEST_S = 20.0
"""Deadline of each later request: the dashboard may unpack, or ask other nodes."""

START_S = 120.0
"""Deadline for a job to start on the head: its working tree is unpacked there first."""

QUIET_S = 5.0
"""Seconds without output after which the state of the job is looked up."""

FIRST_LINE = "Running entrypoint for job "
"""Ray's line before the output of the command."""

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


class Details(Protocol):
    """What is read of a job: see `ray.job_submission.JobDetails`."""

    status: Any
    message: str | None
    driver_exit_code: int | None


class Client(Protocol):
    """The part of `ray.job_submission.JobSubmissionClient` that is used."""

    def submit_job(self, *, entrypoint: str, **options: Any) -> str:
        """Start a shell command on the head; returns the id of its job."""

    def get_job_info(self, job_id: str) -> Details:
        """State of a job."""

    def stop_job(self, job_id: str) -> bool:
        """Send SIGTERM to the command of a job."""

    def delete_job(self, job_id: str) -> bool:
        """Forget a job that has ended."""

    def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        """Pieces of a job's output until it ends."""


class RemoteFailed(R1RayError):
    """A command on the head failed; its output says why. `exit_code` is its own."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """The Jobs API of one cluster. `at` connects."""

    address: str
    client: Client

    @classmethod
    def at(cls, address: str, connect: Callable[[str], Client] | None = None) -> Jobs:
        """Connect. Raises ConfigError without a usable token, InfrastructureError if no dashboard answers there."""
        if not address.startswith(("http://", "https://")):
            raise ConfigError(f"--address {address}: expected http://HOST:PORT of the dashboard")
        client: Client = _within(address, lambda: (connect or jobs_client)(address), ANSWER_S)
        return cls(address=address, client=client)

    def submit(self, words: Sequence[str], **options: Any) -> str:
        """Start `python -m r1ray WORDS` on the head; returns the id of the job. `options`: see `submit_job`."""
        entrypoint = shlex.join(["python", "-m", "r1ray", *words])
        return self._call(lambda: self.client.submit_job(entrypoint=entrypoint, **options))

    def command(self, words: Sequence[str]) -> Generator[str, None, None]:
        """The lines that `r1ray WORDS` prints on the head, as they come. Close it: that ends the command there.

        Raises RemoteFailed with the exit code of the command.
        """
        # Without an address: there it must work on the run folder, not submit itself again.
        variables = {"PYTHONUNBUFFERED": "1", "RAY_API_SERVER_ADDRESS": ""}
        job = self.submit(words, runtime_env={"env_vars": variables}, metadata={"r1ray": words[0]})
        try:
            yield from self.lines(job)
        except BaseException:  # Ctrl-C here, too
            self._end(job)
            raise
        try:
            self.refuse_failure(job, f"r1ray {words[0]}")
        finally:
            self._delete(job)

    def lines(self, job: str) -> Iterator[str]:
        """The lines of a job's output until it ends. Raises DeadlineExceeded if it does not start in START_S,
        InfrastructureError if its output breaks off, also if that goes silent without an end."""
        chunks: queue.Queue[str | BaseException | None] = queue.Queue()
        threading.Thread(target=_tail, args=(self.client, job, chunks), daemon=True).start()
        until, begun, rest, over = time.monotonic() + START_S, False, "", False
        while True:
            try:
                chunk = chunks.get(timeout=QUIET_S)
            except queue.Empty:
                was_over, over = over, self.details(job).status in ENDED  # raises if the cluster is out of reach
                chunk = ConnectionError(f"silent {QUIET_S:g} s after the job's end") if was_over else ""
            if isinstance(chunk, BaseException):
                raise InfrastructureError(
                    f"the output of job {job} at {self.address} broke off: {one_line(str(chunk))}; {_AGAIN}"
                ) from chunk
            *complete, rest = (rest + (chunk or "")).split("\n")
            for line in complete:
                if begun:
                    yield line
                begun = begun or line.startswith(FIRST_LINE)
            if chunk is None:
                if begun and rest:
                    yield rest
                return
            if not begun and time.monotonic() > until:
                raise DeadlineExceeded(f"job {job} at {self.address} has not started within {START_S:g} s")

    def details(self, job: str) -> Details:
        """State of a job."""
        return self._call(lambda: self.client.get_job_info(job))

    def refuse_failure(self, job: str, what: str) -> None:
        """Raise RemoteFailed unless the job, whose output has ended, succeeded."""
        until = time.monotonic() + REQUEST_S
        while (details := self.details(job)).status not in ENDED:
            if time.monotonic() > until:
                raise DeadlineExceeded(
                    f"job {job} at {self.address} has no outcome {REQUEST_S:g} s after its output ended"
                )
            time.sleep(0.1)
        if details.status != "SUCCEEDED":
            code = details.driver_exit_code
            reason = (details.message or str(details.status)).partition(", last available logs")[0]
            raise RemoteFailed(
                f"{what} failed on the head of {self.address}: {reason}; its output is above",
                exit_code=code if code is not None and 0 < code < 256 else 1,
            )

    def _end(self, job: str) -> None:
        """End a job whose output is not wanted any more, or cannot be read. Says so if that fails."""
        try:
            self._call(lambda: self.client.stop_job(job))
            self._delete(job)
        except R1RayError as e:
            print(f"job {job} may still run on the head: {e}", file=sys.stderr, flush=True)

    def _delete(self, job: str) -> None:
        """Remove a short job from the cluster's list, once it has ended."""
        until = time.monotonic() + REQUEST_S
        while self.details(job).status not in ENDED and time.monotonic() < until:
            time.sleep(0.2)
        self._call(lambda: self.client.delete_job(job))

    def _call(self, call: Callable[[], T]) -> T:
        return _within(self.address, call, REQUEST_S)


def jobs_client(address: str) -> JobSubmissionClient:
    """A client of the Jobs API of the dashboard at `address` (http://host:port), with the token of this machine.

    It asks for the dashboard's version. Raises what Ray's client raises.
    """
    use_token()
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # else RAY_ADDRESS would override the argument
    for module in ("dashboard_sdk", "job.sdk"):  # they report uploads and the end of connections
        logging.getLogger(f"ray.dashboard.modules.{module}").setLevel(logging.ERROR)
    return JobSubmissionClient(address)


def _within(address: str, call: Callable[[], T], deadline_s: float) -> T:
    """The result of a request, made in a thread that is left alone at the deadline. Raises errors by name."""
    answer: Future[T] = Future()

    def request() -> None:
        try:
            answer.set_result(call())
        except BaseException as e:
            answer.set_exception(e)

    threading.Thread(target=request, daemon=True).start()
    try:
        return answer.result(deadline_s)
    except (TimeoutError, requests.exceptions.ReadTimeout) as e:
        raise DeadlineExceeded(
            f"the Ray dashboard at {address} has not answered within {deadline_s:g} s: {_TUNNEL}"
        ) from e
    except AuthenticationError as e:
        raise ConfigError(
            f"the cluster at {address} refuses this machine: {first_sentence(e.message)}; {AUTH_FIX}"
        ) from e
    except (ConnectionError, requests.exceptions.ConnectionError) as e:  # the second is no subclass of the first
        raise InfrastructureError(f"no Ray dashboard answers at {address}: {_TUNNEL}") from e
    except OSError as e:  # others of `requests`, such as an answer with status 502
        what = f"{type(e).__name__}: {one_line(str(e))}"
        raise InfrastructureError(f"a request to the Ray dashboard at {address} failed ({what}): {_TUNNEL}") from e
    except (RuntimeError, ValueError) as e:  # what the dashboard refuses
        raise InfrastructureError(f"the Ray dashboard at {address} refuses a request: {one_line(str(e))}") from e


_TUNNEL = "keep `ray dashboard CLUSTER.yaml` open, which is the tunnel, or give --address http://HOST:PORT"
_AGAIN = (
    "open `ray dashboard CLUSTER.yaml`, the tunnel, again if it has ended, and repeat the command; a submitted run "
    "does "
    "not depend on it"
)


def _tail(client: Client, job: str, chunks: queue.Queue[str | BaseException | None]) -> None:
    async def read() -> None:
        async for chunk in client.tail_job_logs(job):
            chunks.put(chunk)

    try:
        asyncio.run(read())
        chunks.put(None)
    except BaseException as e:
        chunks.put(e)
