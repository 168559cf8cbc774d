"""The number of rollout workers follows the load: simulated learners and workers,
and a fleet with a clock of its own.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from r1ray.config.schema import Config
from r1ray.control.autoscaling import (
    COOL_DOWN_S,
    DOWN_WINDOWS,
    UP_WINDOWS,
    AutoscalePolicy,
    Autoscaler,
    Load,
    autoscaler_of,
)
from r1ray.errors import ConfigError
from tests.unit.fleet_support import World

WINDOW_S = 60.0


def load(workers: float, needed: float, noise: Callable[[], float] = lambda: 0.0) -> Load:
    """The load with `workers`, each of which makes 1/`needed` of what the learner trains in the same time."""
    made = workers / needed

    def noisy(share: float) -> float:
        return min(1.0, max(0.0, share + noise()))

    return Load(
        learner_idle=noisy(max(0.0, 1.0 - made)),
        batch_ready=noisy(1.0 if made > 1.0 else 0.0),
        rollout_idle=noisy(max(0.0, 1.0 - 1.0 / made)),
    )


def numbers(policy: AutoscalePolicy, start: int, needed: list[float], noise: float = 0.0, seed: int = 0) -> list[int]:
    """The number of workers after each window of a simulation in which the learner needs so many."""
    draw, workers, seen = random.Random(seed), start, []
    for need in needed:
        wanted = policy.wanted(load(workers, need, lambda: draw.gauss(0.0, noise)), workers)
        if wanted != workers:
            policy.forget()
        workers = wanted
        seen.append(workers)
    return seen


def test_a_starved_learner_gets_all_workers_by_doubling() -> None:
    assert numbers(AutoscalePolicy(1, 16), 1, [20.0] * 10)[UP_WINDOWS - 1 :: UP_WINDOWS] == [2, 4, 8, 16, 16]


def test_no_more_are_added_than_the_learner_needs() -> None:
    assert numbers(AutoscalePolicy(1, 16), 4, [5.5] * 20)[-1] == 6


def test_a_queue_that_is_full_for_long_takes_workers_away_one_by_one() -> None:
    seen = numbers(AutoscalePolicy(1, 16), 8, [2.0] * 60)
    assert seen[: DOWN_WINDOWS + 1] == [8] * (DOWN_WINDOWS - 1) + [7, 7]
    assert seen[-1] == 3  # two would always be busy, without any reserve
    assert seen == sorted(seen, reverse=True)


def test_the_bounds_hold() -> None:
    assert numbers(AutoscalePolicy(2, 3), 2, [20.0] * 20)[-1] == 3
    assert numbers(AutoscalePolicy(2, 3), 3, [0.1] * 40)[-1] == 2


@pytest.mark.parametrize("needed", [0.7, 1.2, 1.9, 2.6, 3.3, 4.1, 5.0, 6.4, 7.5])
@pytest.mark.parametrize("start", [1, 4, 8])
def test_noise_does_not_make_it_swing(needed: float, start: int) -> None:
    """After it has settled, the number changes once at most in 400 windows, whatever the noise of 5% does."""
    for seed in range(5):
        seen = numbers(AutoscalePolicy(1, 8), start, [needed] * 500, noise=0.05, seed=seed)[100:]
        changes = sum(a != b for a, b in itertools.pairwise(seen))
        assert changes <= 1, (seed, seen)


def test_it_follows_a_load_that_changes() -> None:
    seen = numbers(AutoscalePolicy(1, 8), 1, [6.0] * 40 + [1.5] * 80 + [6.0] * 40, noise=0.03)
    assert seen[39] >= 5
    assert seen[119] in (2, 3)
    assert seen[-1] >= 5


def test_one_bad_window_is_not_enough() -> None:
    policy = AutoscalePolicy(1, 8)
    for _ in range(20):
        assert policy.wanted(load(2, 8.0), 2) == 2
        assert policy.wanted(load(2, 2.0), 2) == 2


class Scaled:
    """An autoscaler on a fleet of fake workers, of which one serves."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self.world = World(workers=1)
        self.serve("rollout-0")
        self.scaler = Autoscaler(
            AutoscalePolicy(1, 3),
            self.world.fleet,
            window_s=window_s,
            start_s=100.0,
            on_event=lambda kind, **fields: self.world.events.append((kind, fields)),
            clock=lambda: self.world.now,
        )

    def serve(self, *names: str) -> None:
        self.world.ready(*names)
        self.world.fleet.synced([*self.world.fleet.serving(), *names], 0)

    def after(self, seconds: float, *, waiting: bool, idle: float = 0.0, quiet: bool = True) -> None:
        """Time passes in steps of a second, in which `idle` of it the engines have nothing to do."""
        for _ in range(int(seconds)):
            for stats in self.world.stats.values():
                stats["tokens"] += 1.0
                stats["idle_s"] += idle
                stats["busy_s"] += 1.0 - idle
            self.world.after(1.0)
            self.scaler.tick(waiting=waiting, ready=not waiting, quiet=quiet)

    def scaled(self) -> list[int]:
        return [fields["workers"] for kind, fields in self.world.events if kind == "scaled"]


def test_a_learner_that_waits_gets_a_worker_and_the_next_one_only_once_that_serves() -> None:
    scaled = Scaled()
    scaled.after(UP_WINDOWS * WINDOW_S + 1, waiting=True)
    assert scaled.scaled() == [2]
    scaled.after(90, waiting=True)  # it starts: nothing is decided meanwhile
    assert scaled.scaled() == [2]
    scaled.serve("rollout-1")
    scaled.after(UP_WINDOWS * WINDOW_S + 1, waiting=True)
    assert scaled.scaled() == [2, 3]


def test_time_in_evaluations_and_outages_does_not_count() -> None:
    scaled = Scaled()
    scaled.after(UP_WINDOWS * WINDOW_S * 3, waiting=True, quiet=False)
    assert scaled.scaled() == []


def test_shorter_windows_decide_earlier() -> None:
    scaled = Scaled(window_s=5.0)
    scaled.after(UP_WINDOWS * 5 + 1, waiting=True)
    assert scaled.scaled() == [2]


def test_idle_engines_beside_a_full_queue_are_taken_away_by_draining() -> None:
    scaled = Scaled()
    scaled.world.fleet.scale(3, "me")
    scaled.world.fleet.tick()
    scaled.serve("rollout-1", "rollout-2")
    scaled.after(DOWN_WINDOWS * WINDOW_S + 2, waiting=False, idle=0.5)
    assert scaled.scaled() == [3, 2]
    assert [fields["worker"] for kind, fields in scaled.world.events if kind == "worker_draining"] == ["rollout-2"]
    assert ("rollout-2", True) in scaled.world.released


def test_workers_without_room_are_given_up_for_a_while() -> None:
    scaled = Scaled()
    scaled.after(UP_WINDOWS * WINDOW_S + 1, waiting=True)
    scaled.after(101, waiting=True)
    assert scaled.scaled() == [2, 1]
    assert [fields["serving"] for kind, fields in scaled.world.events if kind == "autoscale_gave_up"] == [1]
    scaled.after(COOL_DOWN_S - 10, waiting=True)
    assert scaled.scaled() == [2, 1]
    scaled.after(10 + WINDOW_S + 5, waiting=True)
    assert scaled.scaled() == [2, 1, 2]


def test_scaling_by_hand_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rollout\.autoscale decides"):
        Scaled().scaler.scale(2, "me")


def test_without_bounds_there_is_none() -> None:
    config = Config()
    assert autoscaler_of(config, World().fleet, lambda kind, **fields: None) is None
    config.rollout.autoscale.min, config.rollout.autoscale.max = 1, 2
    assert autoscaler_of(config, World().fleet, lambda kind, **fields: None) is not None
