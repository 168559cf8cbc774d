"""The ledger call by call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from r1ray.errors import IntegrityError, WireError
from r1ray.ledger import Ledger, PutOutcome, audit
from tests.unit.ledger_support import Clock, ids, payload

Make = Callable[..., Ledger]


def test_the_worked_example_of_the_class(make: Make) -> None:
    ledger = make(max_staleness=0)
    assert ids(ledger.lease("w0", 0, 8)) == ["0-1", "1-1"]
    assert [ledger.put(payload(g)) for g in ("1-1", "0-1", "1-1")] == ["accepted", "accepted", "duplicate"]
    manifest = ledger.take(0)
    assert manifest is not None
    assert ids(manifest.groups) == ["1-1", "0-1"]
    assert ledger.lease("w0", 0, 8) == []
    assert ids(ledger.lease("w0", 1, 8)) == ["2-1", "3-1"]
    assert ledger.release_worker("w0") == ["2-1", "3-1"]
    assert ids(ledger.lease("w1", 1, 1)) == ["2-2"]
    ledger.commit(1, "step_000001")
    assert ledger.rollback(0).steps == (0,)
    assert ledger.take(0) == manifest


# -- leases


@pytest.mark.parametrize(("staleness", "version", "room"), [(0, 0, 3), (1, 0, 6), (2, 0, 9), (1, 2, 12)])
def test_admission_follows_the_formula(make: Make, staleness: int, version: int, room: int) -> None:
    ledger = make(groups_per_step=3, max_staleness=staleness)
    assert len(ledger.lease("w0", version, 100)) == room
    assert ledger.status().capacity(version) == 0
    assert ledger.status().capacity(version + 1) == 3
    assert ledger.lease("w1", version, 100) == []


def test_dropped_groups_free_their_place(make: Make) -> None:
    ledger = make(max_staleness=0, dynamic_sampling=True)
    ledger.lease("w0", 0, 2)
    assert ledger.put(payload("0-1", rewards=(1.0, 1.0))) is PutOutcome.NO_SIGNAL
    assert ids(ledger.lease("w0", 0, 2)) == ["2-1"]


def test_queued_prompts_go_out_before_new_ones_in_their_order(make: Make) -> None:
    ledger = make()
    ledger.lease("w0", 0, 4)
    ledger.fail("2-1", "EngineDied", infrastructure=True)
    ledger.fail("1-1", "EngineDied", infrastructure=True)
    assert ids(ledger.lease("w1", 1, 3)) == ["1-2", "2-2", "4-1"]


def test_a_lease_lapses_at_its_deadline_and_not_before(make: Make, clock: Clock) -> None:
    ledger = make()
    (lease,) = ledger.lease("w0", 0, 1)
    assert lease.deadline == clock.now + 60
    clock.now += 59
    assert ledger.expire() == []
    assert ledger.expire(clock.now + 1) == ["0-1"]
    assert ledger.status().dropped_by_reason == {"lease_expired": 1}
    assert ids(ledger.lease("w1", 0, 1)) == ["0-2"]


def test_releasing_a_worker_spares_the_leases_of_others(make: Make) -> None:
    ledger = make()
    ledger.lease("w0", 0, 2)
    ledger.lease("w1", 0, 1)
    assert ledger.release_worker("w0") == ["0-1", "1-1"]
    assert ledger.release_worker("w0") == []
    assert ledger.status().leased == 1


# -- puts and failures


def test_a_late_group_is_welcome_until_its_prompt_is_leased_again(make: Make, clock: Clock) -> None:
    ledger = make()
    ledger.lease("w0", 0, 2)
    clock.now += 60
    ledger.expire()
    assert ledger.put(payload("0-1")) is PutOutcome.ACCEPTED
    assert ids(ledger.lease("w1", 0, 1)) == ["1-2"]
    assert ledger.put(payload("1-1")) is PutOutcome.LATE
    assert ledger.put(payload("1-2")) is PutOutcome.ACCEPTED
    assert ledger.put(payload("1-1")) is PutOutcome.LATE


def test_an_infrastructure_failure_takes_nothing_back_that_arrived_first(make: Make) -> None:
    ledger = make()
    ledger.lease("w0", 0, 1)
    ledger.put(payload("0-1"))
    assert not ledger.fail("0-1", "EngineDied", infrastructure=True)
    assert ledger.status().ready == 1


def test_a_lease_is_handed_back_once(make: Make, clock: Clock) -> None:
    ledger = make()
    ledger.lease("w0", 0, 1)
    ledger.expire(clock.now + 60)
    assert not ledger.fail("0-1", "EngineDied", infrastructure=True)
    assert ledger.status().dropped_by_reason == {"lease_expired": 1}
    assert ledger.fail("0-1", "PromptTooLong", infrastructure=False)  # that is news, and counts as an attempt
    assert ledger.status().dropped_by_reason == {"PromptTooLong": 1}


def test_a_score_with_an_error_is_a_failure_and_never_a_sample(make: Make) -> None:
    ledger = make(max_attempts=2)
    ledger.lease("w0", 0, 1)
    assert ledger.put(payload("0-1", error="VerifierError")) is PutOutcome.FAILED
    assert ledger.put(payload("0-1", error="VerifierError")) is PutOutcome.DUPLICATE
    assert ids(ledger.lease("w0", 0, 1)) == ["0-2"]
    assert ledger.put(payload("0-2", rewards=(float("nan"), 1.0))) is PutOutcome.FAILED
    status = ledger.status()
    assert status.dropped_by_reason == {"VerifierError": 1, "reward_not_finite": 1}
    assert (status.dropped_prompts, status.reissued, status.scored) == (1, 1, 0)
    assert ids(ledger.lease("w0", 0, 1)) == ["1-1"]


def test_infrastructure_failures_do_not_use_up_attempts(make: Make) -> None:
    ledger = make(max_attempts=1)
    for attempt in range(1, 6):
        assert ids(ledger.lease("w0", 0, 1)) == [f"0-{attempt}"]
        assert ledger.fail(f"0-{attempt}", "EngineDied", infrastructure=True)
    assert ids(ledger.lease("w0", 0, 1)) == ["0-6"]
    assert ledger.fail("0-6", "PromptTooLong", infrastructure=False)
    assert not ledger.fail("0-6", "PromptTooLong", infrastructure=False)
    assert ledger.status().dropped_prompts == 1


def test_a_prompt_whose_leases_lapse_or_lose_their_workers_again_and_again_is_given_up(
    make: Make, clock: Clock, folder: Path
) -> None:
    ledger = make(max_requeues=3)
    for worker in ("w0", "w1"):
        assert ledger.lease(worker, 0, 1)[0].index == 0
        ledger.release_worker(worker)
    ledger.lease("w2", 0, 2)
    ledger.put(payload("1-1"))
    clock.now += 60
    assert ledger.expire() == ["0-3"]
    assert ids(ledger.lease("w3", 0, 1)) == ["2-1"]
    assert ledger.put(payload("0-3")) is PutOutcome.LATE
    status = ledger.status()
    assert (status.dropped_prompts, status.dropped_by_reason) == (1, {"worker_left": 2, "lease_expired": 1})
    report = audit(folder / "ledger.sqlite", [])
    assert report.ok
    assert [(r.detail, r.groups) for r in report.rows if r.what == "given up"] == [("lease_expired", 1)]


def test_leases_that_are_handed_back_in_good_order_do_not_use_up_returns(make: Make) -> None:
    ledger = make(max_requeues=2)
    for attempt in range(1, 6):
        assert ids(ledger.lease("w", 0, 1)) == [f"0-{attempt}"]
        assert ledger.release_worker("w", drained=True) if attempt % 2 else ledger.release_all()
    ledger.lease("w", 0, 1)
    ledger.release_worker("w")
    assert ledger.put(payload("0-6")) is PutOutcome.ACCEPTED  # late, and welcome: it comes off the count as well
    assert ledger.status().dropped_by_reason == {"worker_drained": 3, "driver_left": 2}


def test_put_many_is_all_or_nothing(make: Make) -> None:
    ledger = make()
    ledger.lease("w0", 0, 3)
    with pytest.raises(WireError, match="cannot be decoded as a msgpack scored"):
        ledger.put_many([payload("0-1"), b"\xc1", payload("1-1")])
    assert ledger.status().leased == 3
    assert ledger.put_many([payload("2-1"), payload("0-1")]) == ["accepted", "accepted"]
    manifest = ledger.take(0)
    assert manifest is not None
    assert ids(manifest.groups) == ["2-1", "0-1"]


def test_what_was_never_leased_here_is_refused(make: Make) -> None:
    ledger = make()
    ledger.lease("w0", 0, 1)
    with pytest.raises(IntegrityError, match="group 7-1 was never leased"):
        ledger.put(payload("7-1"))
    with pytest.raises(IntegrityError, match="group 0-2 was never leased"):
        ledger.fail("0-2", "x", infrastructure=True)
    with pytest.raises(WireError, match="group 0-1: expected prompt 0, for which it was leased, got prompt 5"):
        ledger.put(payload("0-1", index=5))
    with pytest.raises(WireError, match="group 0-1 has no completions"):
        ledger.put(payload("0-1", rewards=()))
    assert ledger.status().leased == 1
