"""Requests to a driver through the run folder: each is obeyed once, by the driver that it is for, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from r1ray.errors import ConfigError, DeadlineExceeded, InfrastructureError
from r1ray.run.folder import RunFolder
from r1ray.run.lock import Holder
from r1ray.run.requests import Answer, answer_to, ask, pending, remove_old, send


def left(folder: RunFolder) -> list[str]:
    return [path.name for path in folder.control.iterdir()]


class Clock:
    """Time passes in the pauses of the sender, in which `driver` acts."""

    def __init__(self, driver: Callable[[], object]) -> None:
        self.now = 0.0
        self._driver = driver

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self._driver()


def asked(folder: RunFolder, driver: Callable[[], object]) -> Answer:
    clock = Clock(driver)
    return ask(RunFolder.open(folder.path), "scale", {"rollout": 2}, deadline_s=5.0, clock=clock, pause=clock.pause)


def answering(folder: RunFolder, answer: Answer) -> Callable[[], None]:
    def act() -> None:
        for request in pending(folder):
            assert (request.command, request.arguments) == ("scale", {"rollout": 2})
            assert "@" in request.by
            answer_to(folder, request, answer)

    return act


def test_the_driver_answers_and_nothing_is_left(folder: RunFolder) -> None:
    answer = Answer(accepted=True, message="1 -> 2", within_s=3.0)
    assert asked(folder, answering(folder, answer)) == answer
    assert left(folder) == []


def test_a_refusal_is_an_error_of_the_user(folder: RunFolder) -> None:
    with pytest.raises(ConfigError, match="at most 1"):
        asked(folder, answering(folder, Answer(accepted=False, message="at most 1")))
    assert left(folder) == []


def test_a_driver_that_does_not_answer_is_named_and_does_not_obey_later(folder: RunFolder) -> None:
    assert folder.own is not None
    with pytest.raises(DeadlineExceeded, match=rf"within 5 s: its driver is process {folder.own.pid} on") as failure:
        asked(folder, lambda: None)
    assert "begun" not in str(failure.value)
    assert list(pending(folder)) == []


def test_a_driver_that_took_the_request_and_did_not_answer_may_have_obeyed(folder: RunFolder) -> None:
    with pytest.raises(DeadlineExceeded, match="had begun with the request"):
        asked(folder, lambda: list(pending(folder)))


def test_a_driver_that_ends_first_is_not_waited_for(folder: RunFolder) -> None:
    with pytest.raises(InfrastructureError, match="ended before it answered"):
        asked(folder, folder.release)
    assert left(folder) == []


def test_an_interrupted_sender_withdraws(folder: RunFolder) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asked(folder, interrupt)
    assert left(folder) == []


def test_without_a_driver_nothing_is_sent(folder: RunFolder) -> None:
    folder.release()
    with pytest.raises(ConfigError, match="no process is running"):
        send(folder, "stop", {})
    assert left(folder) == []


def test_requests_are_taken_in_order_and_once(folder: RunFolder) -> None:
    sent = [send(folder, "scale", {"rollout": n}).id for n in (3, 1, 2)]
    assert [request.id for request in pending(folder)] == sent
    assert list(pending(folder)) == []


def test_a_request_to_a_dead_driver_is_not_obeyed_by_the_next(folder: RunFolder) -> None:
    old = send(folder, "stop", {})
    folder.release()
    folder.lock()
    assert folder.own != old.driver
    remove_old(folder)
    assert left(folder) == []


def test_one_that_arrives_late_for_the_driver_before_is_removed_unread(folder: RunFolder) -> None:
    request = send(folder, "stop", {})
    (path,) = folder.control.iterdir()
    raw = json.loads(path.read_text())
    raw["driver"]["since"] -= 1.0
    path.write_text(json.dumps(raw))
    assert list(pending(folder)) == []
    assert left(folder) == []
    assert request.driver == folder.own


def test_the_start_of_a_driver_keeps_what_was_sent_to_it(folder: RunFolder) -> None:
    request = send(folder, "stop", {})
    answer_to(
        folder, replace(request, id="1", driver=Holder(pid=1, host="h", since=1.0)), Answer(accepted=True, message="")
    )
    remove_old(folder)
    assert [found.id for found in pending(folder)] == [request.id]
    assert left(folder) == []


@pytest.mark.parametrize("content", ["", "[]", '{"command": "stop"}', '{"driver": {"pid": 1}}'])
def test_what_cannot_be_read_is_removed(folder: RunFolder, content: str) -> None:
    (folder.control / "1.request.json").write_text(content)
    assert list(pending(folder)) == []
    assert left(folder) == []
