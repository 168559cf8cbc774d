"""The learner with fake ranks: the ends of calls, and the pauses between restarts."""

from __future__ import annotations

from itertools import pairwise

import pytest

from r1ray.config.schema import Config
from r1ray.control import learners
from r1ray.control.handles import SupervisedApi
from r1ray.control.learners import LearnerGroup, LearnerLostError, Restarts
from tests.unit.scripted import FakeHandle


def test_a_learner_that_dies_again_and_again_is_started_ever_more_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    now, starts = [0.0], []
    monkeypatch.setattr(learners.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(learners, "pause", lambda seconds, tick: now.__setitem__(0, now[0] + seconds))
    restarts = Restarts(9, tick=lambda: None, on_event=lambda kind, **fields: None)
    for _ in range(6):
        restarts.wait()
        starts.append(now[0])
        restarts.lost(LearnerLostError("no room on the device"))
    assert [round(later - earlier) for earlier, later in pairwise(starts)] == [0, 1, 2, 4, 8]
    restarts.saved()
    restarts.wait()
    restarts.lost(LearnerLostError("killed"))
    assert starts[-1] == now[0], "what was saved in between forgives"
    restarts.wait()
    assert starts[-1] == now[0]


def test_a_group_that_is_ended_while_it_is_asked_is_lost() -> None:
    rank = FakeHandle("learner-0", train_step=lambda: 1)
    group = LearnerGroup(Config(), spawn=lambda _: rank, tick=lambda: group.kill())
    group.ranks = [rank]
    for _ in range(2):  # ended by the tick behind the last answer; and before
        with pytest.raises(LearnerLostError, match="killed during: train"):
            group.call(lambda rank: rank.start(SupervisedApi.train_step), deadline_s=9.0, what="train")
