"""Reward models of one worker: loaded one after the other, and none that is loaded waits for another."""

import threading

import pytest

from r1ray.errors import DeadlineExceeded
from r1ray.rewards.learned import preference
from r1ray.rewards.learned.preference import ModelReward, Server

IDS = [1, 2]


def reward(path: str, timeout_s: float) -> ModelReward:
    return ModelReward(path=path, timeout_s=timeout_s, server=Server())


def test_one_model_loads_at_a_time(monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    loaded = []

    def load(server, settings):
        path = settings.path
        if path == "slow":
            begun.set()
            assert go_on.wait(30)
        loaded.append(path)
        return None, None

    monkeypatch.setattr(preference.Server, "load", load)
    monkeypatch.setattr(preference, "scores_of", lambda model, rows: [float(len(row)) for row in rows])
    first, slow, late = reward("first", 30), reward("slow", 30), reward("late", 0.05)
    assert first.server.score(first, IDS) == 2.0

    scores = []
    thread = threading.Thread(target=lambda: scores.append(slow.server.score(slow, IDS)))
    thread.start()
    assert begun.wait(30)
    with pytest.raises(DeadlineExceeded, match="late was not loaded within"):
        late.server.score(late, IDS)
    assert first.server.score(first, IDS) == 2.0
    go_on.set()
    thread.join(30)

    assert scores == [2.0]
    assert late.server.score(late, IDS) == 2.0
    assert loaded == ["first", "slow", "late"]
