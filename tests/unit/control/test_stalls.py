"""Stalls: noticed under an injected clock, written down, acted on."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from r1ray.config.schema import RecoveryConfig
from r1ray.control.stalls import Stalls
from r1ray.control.watchdog import Stage, Watchdog
from r1ray.errors import RetryBudgetExhausted


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_movement_of_any_kind_starts_the_time_anew(clock: Clock) -> None:
    watchdog = Watchdog(10, clock)
    marks = [0.0, 0.0, 0.0]
    for i in range(3):
        marks[i] += 1
        clock.now += 9
        assert watchdog.look(tuple(marks), Stage.BATCH) is None
    clock.now += 9
    assert watchdog.look(tuple(marks), Stage.BATCH) is None
    clock.now += 1
    assert watchdog.look(tuple(marks), Stage.BATCH) == 10


def test_a_stall_is_told_again_only_after_as_long_again(clock: Clock) -> None:
    watchdog = Watchdog(10, clock)
    watchdog.look((1,), Stage.STEP)
    clock.now = 11
    assert watchdog.look((1,), Stage.STEP) == 11
    clock.now = 15  # the diagnosis took 4 s
    watchdog.reported()
    clock.now = 24
    assert watchdog.look((1,), Stage.STEP) is None
    clock.now = 25
    assert watchdog.look((1,), Stage.STEP) == 25


def test_what_has_a_deadline_of_its_own_is_no_stall(clock: Clock) -> None:
    watchdog = Watchdog(10, clock)
    clock.now = 50
    assert watchdog.look((0,), Stage.DEADLINE) is None
    clock.now = 59
    assert watchdog.look((0,), Stage.STEP) is None


class World:
    """A stalled run: two workers, one learner rank."""

    def __init__(self, path: Any, policy: str, stage: Stage) -> None:
        clock = Clock()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.lost: list[str] = []
        self.learner_killed = False
        self.looked_at: list[str] = []
        self.path = path

        def stacks(places: Any) -> dict[str, str]:
            self.looked_at = sorted(places)
            return {name: f"in wait() of {name}" for name in places}

        def kill() -> None:
            self.learner_killed = True

        self.stalls = Stalls(
            config=RecoveryConfig(stall_timeout_s=10, stall_policy=policy),
            watchdog=Watchdog(10, clock),
            stacks=stacks,
            folder=SimpleNamespace(path=path),  # type: ignore[arg-type]
            writer=SimpleNamespace(event=lambda kind, **fields: self.events.append((kind, fields))),  # type: ignore[arg-type]
        )
        member = SimpleNamespace(place={"pid": 1, "node": "n"})
        self.progress: Any = SimpleNamespace(
            stage=stage,
            step=4,
            pausing=False,
            marks=lambda fleet: (1.0,),
            explain=lambda fleet: ["Waiting for rollouts of step 4."],
        )
        self.fleet: Any = SimpleNamespace(
            members={"rollout-0": member, "rollout-1": member}, lost=lambda name, reason: self.lost.append(name)
        )
        self.restarted: list[str] = []
        self.managed: Any = SimpleNamespace(
            places={"queue": {"pid": 3, "node": "n"}, "reward-0": {"pid": 4, "node": "n"}},
            restart=self.restarted.append,
        )
        self.learners: Any = SimpleNamespace(places={"learner-0": {"pid": 2, "node": "n"}}, kill=kill)
        self.look()
        clock.now = 11
        self.clock = clock

    def look(self) -> None:
        self.stalls.tick(self.progress, self.fleet, self.managed, self.learners)


def test_the_diagnosis_names_the_stage_and_shows_the_stacks(tmp_path: Any) -> None:
    world = World(tmp_path, "warn", Stage.BATCH)
    world.look()
    text = (tmp_path / "stall-000004.txt").read_text()
    assert "Nothing has moved for 11 s" in text
    assert "Waiting for rollouts of step 4." in text
    assert "in wait() of rollout-1" in text
    ((kind, fields),) = world.events
    assert (kind, fields["diagnosis"]) == ("stalled", "stall-000004.txt")
    assert (world.lost, world.learner_killed) == ([], False)


@pytest.mark.parametrize(
    ("stage", "looked_at", "lost", "learner_killed"),
    [
        (Stage.BATCH, ["queue", "reward-0", "rollout-0", "rollout-1"], ["rollout-0", "rollout-1"], False),
        (Stage.EVALUATION, ["queue", "reward-0", "rollout-0", "rollout-1"], ["rollout-0", "rollout-1"], False),
        (Stage.STEP, ["learner-0"], [], True),
        (Stage.SYNC, ["learner-0", "rollout-0", "rollout-1"], [], True),
    ],
)
def test_a_restart_ends_those_who_are_waited_for(
    tmp_path: Any, stage: Stage, looked_at: list[str], lost: list[str], learner_killed: bool
) -> None:
    world = World(tmp_path, "restart", stage)
    world.look()
    assert (world.looked_at, world.lost, world.learner_killed) == (looked_at, lost, learner_killed)
    # A reward worker whose scoring hangs answers health questions all the same.
    assert world.restarted == ([] if learner_killed else ["nothing moved for 11 s (recovery.stall_policy=restart)"])


def test_a_run_that_pauses_is_not_stalled(tmp_path: Any) -> None:
    world = World(tmp_path, "abort", Stage.BATCH)
    world.progress.pausing = True
    world.look()
    assert world.events == []
    world.progress.pausing = False
    world.clock.now = 20
    world.look()  # the time begins with the end of the pause
    assert world.events == []
    world.clock.now = 21
    with pytest.raises(RetryBudgetExhausted):
        world.look()


def test_a_diagnosis_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Any, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("r1ray.control.stalls.write_atomic", full)
    world = World(tmp_path, "restart", Stage.BATCH)
    world.look()
    ((kind, fields),) = world.events
    assert kind == "stalled"
    assert "stall-000004.txt: [Errno 28] No space left" in fields["unwritten"]
    assert "in wait() of reward-0" in fields["text"]
    assert world.lost == ["rollout-0", "rollout-1"]


def test_workers_that_start_have_a_deadline_of_their_own(tmp_path: Any) -> None:
    world = World(tmp_path, "abort", Stage.BATCH)
    world.fleet.members = {"rollout-2": SimpleNamespace(place=None)}
    world.look()
    assert world.events == []


def test_an_abort_ends_the_run_and_names_the_diagnosis(tmp_path: Any) -> None:
    with pytest.raises(RetryBudgetExhausted, match=r"stall_policy=abort.*stall-000004\.txt"):
        World(tmp_path, "abort", Stage.STEP).look()
