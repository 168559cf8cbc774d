"""Commands for runs that are under way: from the run folder, and through the head of a cluster."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from r1ray.cli import build_app
from r1ray.cli import logs as logs_module
from r1ray.cli import scale as scale_module
from r1ray.cli import status as status_module
from r1ray.errors import ConfigError, DeadlineExceeded, R1RayError
from r1ray.launch import jobs as jobs_module
from r1ray.run.folder import RunFolder
from r1ray.run.requests import Answer
from tests.unit.fake_jobs import Details, FakeJobs

RECORD = {
    "state": "running",
    "waiting_for": "rollouts for step 3",
    "step": 3,
    "steps": 9,
    "elapsed_s": 61.0,
    "eta_s": 122.0,
    "policy_version": 3,
    "synced_version": 3,
    "last_sync": {"version": 3, "seconds": 0.5, "age_s": 12.0},
    "rates": {"rollout_tokens_per_s": 900.0, "learner_tokens_per_s": 450.0},
    "metrics": {"staleness/mean": 0.5, "staleness/max": 1.0},
    "workers": [{"id": "rollout-0", "role": "rollout", "state": "healthy", "version": 3, "tokens_per_s": 900.0}],
    "actors": [{"id": "queue", "state": "healthy", "pid": 7}],
}
ADDRESS = ("--address", "http://127.0.0.1:8265")


@pytest.fixture
def folder(folder: RunFolder) -> RunFolder:
    folder.write_status({**RECORD, "updated": time.time()})
    return folder


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> FakeJobs:
    fake = FakeJobs()
    monkeypatch.setattr(jobs_module, "jobs_client", lambda address: fake)
    return fake


def run(*arguments: str) -> str:
    result = CliRunner().invoke(build_app(), list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_the_table_has_stages_versions_staleness_queue_rates_sync_and_time(folder: RunFolder) -> None:
    text = run("status", str(folder.path))
    for words in (
        f"process {os.getpid()} on",
        "3 of 9, after 1m 01s, 2m 02s left",
        "waiting for rollouts for step 3",
        "policy 3 in 0.5 s, 12.0 s ago",
        "900 rollout, 450 learner",
        "0.5 steps on average, at most 1",
        "healthy, policy 3, 900 tokens/s",
        "healthy, process 7",
    ):
        assert words in text, text


def test_the_processes_of_a_driver_that_is_gone_are_not_shown_as_healthy(folder: RunFolder) -> None:
    folder.release()
    text = run("status", str(folder.path))
    assert "killed" in text
    assert "healthy" not in text
    assert "it waited for rollouts for step 3" in text


def test_a_live_table_ends_with_the_driver(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_module.time, "sleep", lambda seconds: folder.release())
    lines = run("status", str(folder.path), "--follow", "--json").splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["running", "killed"]
    assert run("status", str(folder.path), "--follow").count("state") == 1


def test_the_status_of_a_run_on_a_cluster_is_shown_in_the_same_way(folder: RunFolder, head: FakeJobs) -> None:
    here = run("status", str(folder.path), "--json")
    head.chunks = [here]
    there = run("status", str(folder.path), *ADDRESS)
    assert "3 of 9, after 1m 01s" in there
    head.chunks = [json.dumps(json.loads(here)) + "\n"] * 2
    assert run("status", str(folder.path), "--follow", *ADDRESS).count("3 of 9") == 2
    assert [sent["entrypoint"].split(" ", 3)[3] for sent in head.submitted] == [
        f"status {folder.path} --json",
        f"status {folder.path} --json --follow",
    ]


def test_an_error_on_the_head_is_shown(head: FakeJobs, tmp_path: Path) -> None:
    head.chunks, head.outcome = ["ConfigError: /x is not a run folder\n"], Details("FAILED", "failed", 2)
    with pytest.raises(R1RayError) as failure:
        run("status", str(tmp_path), *ADDRESS)
    assert failure.value.exit_code == 2


def test_a_path_that_only_this_machine_knows_is_refused(head: FakeJobs) -> None:
    for command in (["status"], ["scale", "rollout=2"], ["stop"], ["logs"]):
        with pytest.raises(ConfigError, match="expected the absolute path"):
            run(command[0], "runs/my", *command[1:], *ADDRESS)
    assert head.submitted == []


@pytest.mark.parametrize(
    ("command", "sent"),
    [
        (["scale", "/r", "rollout=2"], "scale /r rollout=2"),
        (["stop", "/r", "--now", "--no-wait"], "stop /r --now --no-wait"),
        (["logs", "/r", "queue", "-f", "-n", "3"], "logs /r queue --lines=3 --follow"),
    ],
)
def test_other_commands_are_passed_on_and_their_lines_shown(head: FakeJobs, command: list[str], sent: str) -> None:
    head.chunks = ["done\n"]
    assert run(*command, *ADDRESS) == "done\n"
    assert head.submitted[0]["entrypoint"] == f"python -m r1ray {sent}"


@pytest.mark.parametrize("actor", [[], ["rollout-0"]])
def test_logs_of_a_run_on_a_cluster_are_followed_to_its_end(head: FakeJobs, actor: list[str]) -> None:
    head.chunks = ["first\nsec", "ond\n", "", "last of a killed process"]
    assert run("logs", "/r", *actor, "-f", *ADDRESS).splitlines() == ["first", "second", "last of a killed process"]
    assert head.submitted[0]["entrypoint"] == " ".join(["python -m r1ray logs /r", *actor, "--lines=20 --follow"])
    assert (head.stopped, head.deleted) == ([], ["job-1"])


@pytest.mark.parametrize("command", [["logs", "/r", "queue", "-f"], ["status", "/r", "--follow", "--json"]])
@pytest.mark.parametrize("end", [KeyboardInterrupt, BrokenPipeError])
def test_the_command_on_the_head_ends_with_the_one_here(
    head: FakeJobs, monkeypatch: pytest.MonkeyPatch, command: list[str], end: type[BaseException]
) -> None:
    """Ctrl-C, or `| head` that has read enough, while a line is printed."""
    head.chunks, head.holds = ['{"state": "running"}\n'] * 2, True

    def echo(text: str) -> None:
        raise end

    monkeypatch.setattr("typer.echo", echo)
    result = CliRunner().invoke(build_app(), [*command, *ADDRESS])
    assert result.exit_code != 0
    assert (head.stopped, head.deleted) == (["job-1"], ["job-1"])


Answering = Callable[..., Answer]


def answer(monkeypatch: pytest.MonkeyPatch, message: str, **fields: float) -> list[tuple[str, dict[str, object]]]:
    asked: list[tuple[str, dict[str, object]]] = []

    def ask(folder: RunFolder, command: str, arguments: dict[str, object]) -> Answer:
        asked.append((command, arguments))
        return Answer(accepted=True, message=message, **fields)

    monkeypatch.setattr(scale_module, "ask", ask)
    return asked


def test_scale_shows_the_answer(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(monkeypatch, "rollout workers: 1 -> 3")
    assert run("scale", str(folder.path), "rollout=3") == "rollout workers: 1 -> 3\n"
    assert asked == [("scale", {"rollout": 3})]


def test_stop_waits_for_the_end_and_says_how_it_ended(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(monkeypatch, "stopping", within_s=60.0)

    def ended(seconds: float) -> None:
        folder.write_status({"state": "interrupted"})
        folder.release()

    monkeypatch.setattr(scale_module.time, "sleep", ended)
    text = run("stop", str(folder.path))
    assert text.splitlines()[:2] == ["stopping", "interrupted"]
    assert f"r1ray train --resume {folder.path}" in text.replace("\n", "")
    assert asked == [("stop", {"now": False})]


def test_a_stop_that_takes_too_long_is_named(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "stopping", within_s=-31.0)
    with pytest.raises(DeadlineExceeded, match="the driver still runs"):
        run("stop", str(folder.path))
    assert run("stop", str(folder.path), "--no-wait") == "stopping\n"


def test_logs_of_all_and_of_one(folder: RunFolder) -> None:
    (folder.logs / "queue.log").write_text("a\nb\n\x1b[2J")
    (folder.logs / "rollout-0.log").write_text("c\n")
    assert run("logs", str(folder.path)).splitlines() == [
        "     queue | a",
        "     queue | b",
        " rollout-0 | c",
        "     queue | ␛[2J",
    ]
    assert run("logs", str(folder.path), "queue", "-n", "2").splitlines() == ["b", "␛[2J"]


def test_following_ends_with_the_driver_and_shows_its_last_lines(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.logs / "queue.log").write_text("a\n")

    def later(seconds: float) -> None:
        (folder.logs / "queue.log").write_text("a\nlast\n")
        folder.release()

    monkeypatch.setattr(logs_module.time, "sleep", later)
    assert run("logs", str(folder.path), "queue", "-f").splitlines() == ["a", "last"]
