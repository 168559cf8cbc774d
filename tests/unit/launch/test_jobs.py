"""Commands on the head of a cluster through its Jobs API."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import requests
from ray.exceptions import AuthenticationError

from r1ray.errors import ConfigError, DeadlineExceeded, InfrastructureError
from r1ray.launch import jobs as jobs_module
from r1ray.launch.jobs import Jobs, RemoteFailed
from tests.unit.fake_jobs import Details, FakeJobs

ADDRESS = "http://127.0.0.1:8265"
RAW = "HTTPConnectionPool(host='127.0.0.1', port=8265): Max retries exceeded with url: /api/jobs/job-1"
"""How `requests` begins its messages."""


def on(fake: FakeJobs) -> Jobs:
    return Jobs.at(ADDRESS, connect=lambda address: fake)


def test_the_lines_of_the_command_are_those_after_rays_own() -> None:
    fake = FakeJobs(chunks=["one\ntw", "o\n", "last"])
    assert list(on(fake).command(["status", "/runs/a b", "--json"])) == ["one", "two", "last"]
    assert fake.submitted[0]["entrypoint"] == "python -m r1ray status '/runs/a b' --json"
    assert (fake.stopped, fake.deleted) == ([], ["job-1"])
    assert fake.submitted[0]["runtime_env"]["env_vars"]["RAY_API_SERVER_ADDRESS"] == ""  # else it would submit itself


def test_a_command_that_fails_there_fails_here_with_its_exit_code() -> None:
    fake = FakeJobs(
        chunks=["ConfigError: no\n"], outcome=Details("FAILED", "failed with exit code 2, last available logs: ...", 2)
    )
    with pytest.raises(
        RemoteFailed, match=r"r1ray scale failed on the head .*exit code 2; its output is above$"
    ) as failure:
        list(on(fake).command(["scale"]))
    assert failure.value.exit_code == 2
    assert fake.deleted == ["job-1"]


def test_an_environment_that_cannot_be_made_is_named() -> None:
    fake = FakeJobs(starts=False, outcome=Details("FAILED", "runtime_env setup failed: no zip", None))
    with pytest.raises(RemoteFailed, match="runtime_env setup failed: no zip") as failure:
        list(on(fake).command(["status"]))
    assert failure.value.exit_code == 1


def test_closing_the_iterator_ends_the_command_there() -> None:
    fake = FakeJobs(chunks=["one\n"], holds=True)
    lines = on(fake).command(["logs", "--follow"])
    assert next(lines) == "one"
    lines.close()
    assert (fake.stopped, fake.deleted) == (["job-1"], ["job-1"])


def test_an_output_that_breaks_off_is_named() -> None:
    fake = FakeJobs(chunks=["one\n"], breaks=RuntimeError("close code 1006"))
    with pytest.raises(InfrastructureError, match=r"broke off: close code 1006; open `ray dashboard"):
        list(on(fake).command(["logs"]))


def test_a_quiet_command_is_waited_for_as_long_as_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "QUIET_S", 0.02)
    fake = FakeJobs(chunks=["one\n"], holds=True, outcome=Details("RUNNING", None, None))
    looks: list[str] = []
    info = fake.get_job_info

    def look(job: str) -> Details:
        looks.append(job)
        if len(looks) == 5:
            fake.outcome, fake.holds = Details(), False
        return info(job)

    fake.get_job_info = look  # type: ignore[method-assign]
    assert list(on(fake).command(["logs", "/r", "-f"])) == ["one"]
    assert len(looks) >= 5
    assert (fake.stopped, fake.deleted) == ([], ["job-1"])


def test_an_output_that_goes_silent_without_an_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "QUIET_S", 0.02)
    fake = FakeJobs(chunks=["one\n"], silent=True)
    lines = on(fake).command(["logs", "/r", "-f"])
    assert next(lines) == "one"
    with pytest.raises(InfrastructureError, match=r"output of job job-1 .* broke off: silent .* after the job's end"):
        next(lines)
    fake.silent = False


def test_a_tunnel_that_breaks_while_the_output_is_quiet_is_named_and_what_may_be_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs_module, "QUIET_S", 0.02)
    fake = FakeJobs(chunks=["one\n"], holds=True)

    def gone(job: str) -> Any:
        raise requests.exceptions.ConnectionError(RAW)

    fake.get_job_info = fake.stop_job = gone  # type: ignore[method-assign]
    lines = on(fake).command(["logs", "/r", "-f"])
    assert next(lines) == "one"
    with pytest.raises(InfrastructureError, match="no Ray dashboard answers"):
        next(lines)
    said = capsys.readouterr().err
    assert "job job-1 may still run on the head: no Ray dashboard answers" in said
    assert "Max retries" not in said
    fake.holds = False


@pytest.mark.parametrize(
    ("error", "named", "words"),
    [
        (AuthenticationError("Authentication token is missing. See the docs."), ConfigError, "RAY_AUTH_MODE=token"),
        (
            AuthenticationError("Forbidden: Invalid token\n\nIt is enabled"),
            ConfigError,
            "Invalid token; set RAY_AUTH_MODE",
        ),
        (ConnectionError("Failed to connect"), InfrastructureError, "ray dashboard"),
        (
            requests.exceptions.ConnectionError(RAW),
            InfrastructureError,
            "no Ray dashboard answers at .*ray dashboard",
        ),
        (requests.exceptions.ReadTimeout(RAW), DeadlineExceeded, "has not answered within .*ray dashboard"),
        (
            requests.exceptions.HTTPError("502 Bad Gateway"),
            InfrastructureError,
            r"failed \(HTTPError: 502 Bad Gateway\): .*ray dashboard",
        ),
        (RuntimeError("Request failed with status code 500"), InfrastructureError, "status code 500"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_named(error: Exception, named: type[Exception], words: str) -> None:
    def connect(address: str) -> Any:
        raise error

    with pytest.raises(named, match=words) as failure:
        Jobs.at(ADDRESS, connect=connect)
    assert ADDRESS in str(failure.value)
    assert "Max retries" not in str(failure.value)


def test_a_dashboard_that_hangs_is_left_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "ANSWER_S", 0.05)
    forever = threading.Event()
    with pytest.raises(DeadlineExceeded, match=r"has not answered within 0\.05 s"):
        Jobs.at(ADDRESS, connect=lambda address: forever.wait())  # type: ignore[arg-type, return-value]
    forever.set()


def test_a_job_that_does_not_start_is_left_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "START_S", 0.0)
    fake = FakeJobs(starts=False, holds=True)
    with pytest.raises(DeadlineExceeded, match="has not started"):
        list(on(fake).command(["status"]))
    assert fake.stopped == ["job-1"]


@pytest.mark.parametrize("address", ["127.0.0.1:8265", "auto", "ray://head:10001"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="expected http://HOST:PORT"):
        Jobs.at(address, connect=lambda address: FakeJobs())
