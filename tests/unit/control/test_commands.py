"""What a driver does with the requests in its run folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r1ray.control.commands import LOOK_EVERY_S, Commands
from r1ray.control.stop import RunInterruptedError, Stop
from r1ray.errors import ConfigError
from r1ray.run.folder import RunFolder
from r1ray.run.identity import RunIdentity
from r1ray.run.requests import send


class Scaled:
    """A fleet of one to four workers."""

    def __init__(self) -> None:
        self.workers = 1

    def scale(self, workers: int, by: str) -> int:
        assert "@" in by
        if workers > 4:
            raise ConfigError("expected 1 to 4")
        before, self.workers = self.workers, workers
        return before


class World:
    """A driver in its run folder."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.fleet: Scaled | None = Scaled()
        self.stop = Stop(60.0, clock=lambda: 0.0)
        self.now = 0.0
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.commands = Commands(
            folder,
            stop=self.stop,
            on_event=lambda kind, **fields: self.events.append((kind, fields)),
            clock=lambda: self.now,
        )

    def answer(self, command: str, **arguments: Any) -> dict[str, Any]:
        """What the driver answers at its next look."""
        request = send(self.folder, command, arguments)
        self.now += LOOK_EVERY_S
        self.commands.tick(self.fleet)
        answer: dict[str, Any] = json.loads((self.folder.control / f"{request.id}.answer.json").read_text())
        return answer


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    identity = RunIdentity.new(vocab_hash="v", config_hash="c", model_hash="m")
    with RunFolder.create(tmp_path / "run", "run: {}\n", identity) as folder:
        yield World(folder)


def test_scaling_is_done_and_answered(world: World) -> None:
    assert world.answer("scale", rollout=3) == {
        "accepted": True,
        "message": "rollout workers: 1 -> 3",
        "within_s": None,
    }
    assert world.fleet is not None
    assert world.fleet.workers == 3


@pytest.mark.parametrize("rollout", [9, "2", None])
def test_what_cannot_be_scaled_is_refused_and_the_run_continues(world: World, rollout: Any) -> None:
    answer = world.answer("scale", rollout=rollout)
    assert not answer["accepted"]
    assert "expected" in answer["message"]
    assert world.fleet is not None
    assert world.fleet.workers == 1


def test_a_run_without_rollout_workers_says_so(world: World) -> None:
    world.fleet = None
    assert "no rollout workers" in world.answer("scale", rollout=2)["message"]


def test_a_run_that_stops_is_not_scaled(world: World) -> None:
    world.stop.request("SIGTERM")
    assert "stopping (SIGTERM)" in world.answer("scale", rollout=2)["message"]


def test_a_stop_is_graceful_and_names_its_deadline(world: World) -> None:
    answer = world.answer("stop", now=False)
    assert answer["accepted"]
    assert answer["within_s"] == 60.0
    world.stop.check(unsaved=True)
    with pytest.raises(RunInterruptedError, match=r"r1ray stop by .*@"):
        world.stop.check(unsaved=False)
    assert "already stopping" in world.answer("stop", now=False)["message"]
    assert [kind for kind, _ in world.events] == ["stop_requested"]


def test_a_stop_at_once_does_not_wait(world: World) -> None:
    assert world.answer("stop", now=True)["accepted"]
    with pytest.raises(KeyboardInterrupt):
        world.stop.check(unsaved=True)


def test_a_request_of_another_version_is_refused(world: World) -> None:
    assert "does not know the request 'pause'" in world.answer("pause")["message"]


def test_the_folder_is_looked_at_twice_a_second_at_most(world: World) -> None:
    world.commands.tick(world.fleet)
    request = send(world.folder, "scale", {"rollout": 2})
    world.now += LOOK_EVERY_S / 2
    world.commands.tick(world.fleet)
    assert (world.folder.control / f"{request.id}.request.json").exists()
    world.now += LOOK_EVERY_S / 2
    world.commands.tick(world.fleet)
    assert not (world.folder.control / f"{request.id}.request.json").exists()


def test_a_full_disk_does_not_end_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    send(world.folder, "scale", {"rollout": 2})
    monkeypatch.setattr("r1ray.control.commands.answer_to", full)
    world.commands.tick(world.fleet)
    assert world.fleet is not None
    assert world.fleet.workers == 2
