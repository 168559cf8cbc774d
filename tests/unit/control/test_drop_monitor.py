"""When dropped groups are reported, with what text, and when they end the run. Counts come from a real ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1ray.codec import pack_scored
from r1ray.control.drop_monitor import DropMonitor
from r1ray.errors import NoTrainableGroups
from r1ray.ledger.ledger import Ledger
from r1ray.ledger.records import LedgerSettings
from r1ray.types import Score
from tests.unit.scripted import scored

BATCH = 4
KEY_ERROR = "VerifierCrash: own: KeyError: 'gold'"


class Watched:
    """A ledger that a test fills, and the monitor that looks at it after each call."""

    def __init__(self, path: Path, max_dropped_batches: int) -> None:
        settings = LedgerSettings(
            groups_per_step=BATCH, max_staleness=10**6, lease_timeout_s=600, max_attempts=1, dynamic_sampling=True
        )
        self.ledger = Ledger.create(path, settings, run_id="r")
        self.events: list[dict[str, Any]] = []
        self.monitor = DropMonitor(
            groups_per_step=BATCH, max_dropped_batches=max_dropped_batches, on_event=self._on_event
        )
        self.text = self.monitor.look(self.ledger.status())
        self.steps = 0

    def _on_event(self, kind: str, **fields: Any) -> None:
        self.events.append({"kind": kind, **fields})

    def look(self) -> str:
        self.text = self.monitor.look(self.ledger.status())
        return self.text

    def put(self, groups: int, *, rewards: Sequence[float] = (0.0, 1.0), error: str | None = None) -> str:
        for lease in self.ledger.lease("w", 0, groups):
            group = scored(lease.index, rewards=rewards)
            scores = group.scores
            if error is not None:
                scores = tuple(
                    Score(reward=0.0, parts={}, error=f"{error} {lease.index}", error_kind=error) for _ in scores
                )
            rollout = replace(group.rollout, group_id=lease.group_id)
            self.ledger.put(pack_scored(replace(group, rollout=rollout, scores=scores)))
        return self.look()

    def take(self) -> str:
        assert self.ledger.take(self.steps) is not None
        self.steps += 1
        return self.look()


Make = Callable[..., Watched]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Make]:
    made: list[Watched] = []

    def make(max_dropped_batches: int = 1000) -> Watched:
        made.append(Watched(tmp_path / "ledger.sqlite", max_dropped_batches))
        return made[-1]

    yield make
    for one in made:
        one.ledger.close()


def test_a_reward_that_fails_on_every_sample_is_reported_with_the_first_batch_of_groups(watched: Make) -> None:
    run = watched()
    assert run.put(BATCH - 1, error=KEY_ERROR) == ""
    assert run.events == []
    text = run.put(1, error=KEY_ERROR)
    assert text == f"4 of 4 groups for step 0 (100%) were dropped: {KEY_ERROR} (4)"
    (event,) = run.events
    assert event == {
        "kind": "groups_dropped",
        "message": text,
        "step": 0,
        "share": 1.0,
        "reasons": {KEY_ERROR: 4},
    }
    assert "8 of 8" in run.put(4, error=KEY_ERROR)
    assert len(run.events) == 1


def test_half_of_the_groups_lost_to_an_error_are_reported_and_less_is_not(watched: Make) -> None:
    run = watched()
    run.put(5)
    assert run.put(4, error="DataError: units: no unit in ...") == ""  # 4 of 9
    assert run.put(1, error="DataError: units: no unit in ...") != ""
    assert run.events[0]["share"] == 0.5


def test_dynamic_sampling_may_drop_most_groups_but_not_all(watched: Make) -> None:
    run = watched()
    run.put(2)
    assert run.put(17, rewards=(1.0, 1.0)) == ""  # 17 of 19: 89%
    assert run.put(1, rewards=(1.0, 1.0)).endswith(
        "all rewards of a group are equal and algorithm.dynamic_sampling is on (18)"
    )


def test_the_two_most_frequent_reasons_are_named_and_the_others_counted(watched: Make) -> None:
    run = watched()
    for n, error in ((1, "a"), (3, "b"), (1, "c"), (2, "d")):
        run.put(n, error=error)
    assert run.text == "7 of 7 groups for step 0 (100%) were dropped: b (3); d (2); 2 more reasons"


def test_an_episode_ends_with_a_batch_that_drops_less(watched: Make) -> None:
    run = watched()
    run.put(6, error="a")
    run.put(BATCH)
    assert run.take() != ""  # 6 of 10 in that batch
    run.put(1, error="a")
    run.put(BATCH)
    assert run.take() == ""
    run.put(6, error="a")
    assert len(run.events) == 2
    assert run.events[1]["step"] == 2


def test_the_run_ends_after_so_many_batches_without_one_group_to_train_on(watched: Make) -> None:
    run = watched(max_dropped_batches=3)
    run.put(11, error=KEY_ERROR)
    run.put(1)  # one accepted group: the count begins again
    run.put(11, error=KEY_ERROR)
    with pytest.raises(NoTrainableGroups) as failure:
        run.put(1, error=KEY_ERROR)
    text = str(failure.value)
    assert text.startswith(
        f"12 of 12 groups in a row (100%) were dropped: {KEY_ERROR} (12). After 3 batches without one"
    )
    assert "recovery.max_dropped_batches" in text
    assert "Correct `rewards` or `data.train`; then continue with --resume" in text
    assert failure.value.exit_code == 4


def test_equal_rewards_end_the_run_with_a_remedy_of_their_own(watched: Make) -> None:
    run = watched(max_dropped_batches=2)
    with pytest.raises(NoTrainableGroups, match=r"set algorithm\.dynamic_sampling=false"):
        run.put(8, rewards=(0.5, 0.5))


def test_leases_that_return_and_stale_groups_are_not_rejected(watched: Make) -> None:
    run = watched(max_dropped_batches=1)
    assert len(run.ledger.lease("dead", 0, 8)) == 8
    run.ledger.release_worker("dead")
    assert run.look() == ""
    status = run.ledger.status()
    assert (status.dropped, status.rejected_by_reason, status.accepted) == (8, {}, 0)


def test_groups_that_were_dropped_before_this_driver_started_do_not_count(watched: Make) -> None:
    run = watched()
    run.put(BATCH, error=KEY_ERROR)
    events: list[str] = []
    resumed = DropMonitor(groups_per_step=BATCH, max_dropped_batches=1, on_event=lambda kind, **_: events.append(kind))
    assert resumed.look(run.ledger.status()) == ""
    assert events == []
