"""The health state machine: no process, no Ray, no clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ray.control.health import Health, HealthLimits, State

LIMITS = HealthLimits(start_s=100, suspect_s=5, dead_s=60)


@pytest.fixture
def healthy() -> Health:
    health = Health(LIMITS, 0)
    health.ready()
    health.synced()
    return health


def test_a_process_is_trusted_only_after_a_whole_sync() -> None:
    health = Health(LIMITS, 0)
    assert (health.state, health.alive) == (State.RESTARTING, False)
    health.ready()
    assert (health.state, health.alive) == (State.STALE, True)
    health.synced()
    assert health.state is State.HEALTHY


def test_a_start_has_a_deadline() -> None:
    health = Health(LIMITS, 10)
    assert health.check(110) is State.RESTARTING
    assert health.check(111) is State.DEAD
    assert "deadlines.actor_start_s" in health.reason


def test_a_process_that_starts_may_be_silent_for_longer() -> None:
    health = Health(LIMITS, 0)
    health.request_sent(1)
    assert health.check(99) is State.RESTARTING


@pytest.mark.parametrize("trusted", [State.HEALTHY, State.STALE])
def test_silence_makes_suspect_and_an_answer_restores(healthy: Health, trusted: State) -> None:
    if trusted is State.STALE:
        healthy.missed_sync()
    healthy.request_sent(10)
    assert healthy.check(15) is trusted
    assert healthy.check(16) is State.SUSPECT
    assert not healthy.alive
    healthy.answered()
    assert healthy.state is trusted


def test_silence_beyond_the_deadline_is_death(healthy: Health) -> None:
    healthy.request_sent(10)
    healthy.request_sent(60)  # a later question does not make the first one younger
    assert healthy.check(71) is State.DEAD
    assert "deadlines.rpc_s" in healthy.reason
    healthy.answered()
    assert healthy.state is State.DEAD


def test_a_sync_that_passes_a_suspect_by_leaves_it_stale(healthy: Health) -> None:
    healthy.request_sent(0)
    healthy.check(6)
    healthy.missed_sync()
    healthy.answered()
    assert healthy.state is State.STALE


def test_a_sync_is_a_sign_of_life(healthy: Health) -> None:
    healthy.request_sent(0)
    healthy.check(6)
    healthy.synced()
    assert healthy.check(100) is State.HEALTHY


def test_the_dead_are_restarted_and_forget_what_they_were_asked(healthy: Health) -> None:
    healthy.request_sent(0)
    healthy.died("killed")
    healthy.synced()
    healthy.ready()
    assert healthy.state is State.DEAD
    healthy.restart(10)
    assert healthy.check(90) is State.RESTARTING


@given(
    st.lists(st.sampled_from(["ready", "request_sent", "answered", "synced", "missed_sync", "died", "restart", "wait"]))
)
def test_only_a_whole_sync_leads_to_healthy_and_only_a_restart_out_of_death(happened: list[str]) -> None:
    health, now = Health(LIMITS, 0), 0.0
    for event in happened:
        before = health.check(now)
        if event == "wait":
            now += 7
        elif event in ("request_sent", "restart"):
            getattr(health, event)(now)
        elif event == "died":
            health.died("x")
        else:
            getattr(health, event)()
        after = health.check(now)
        if after is State.HEALTHY and before not in (State.HEALTHY, State.SUSPECT):
            assert event == "synced"
        if before is State.DEAD and after is not State.DEAD:
            assert event == "restart"
