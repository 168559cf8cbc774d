"""Batches, checkpoints and what can be seen of them, call by call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from r1ray.codec import unpack_scored
from r1ray.errors import ConfigError, IntegrityError
from r1ray.ledger import Ledger, LedgerReader, PutOutcome
from tests.unit.ledger_support import Clock, ids, payload, rules, train

Make = Callable[..., Ledger]


def test_too_few_groups_bind_nothing(make: Make) -> None:
    ledger = make()
    ledger.lease("w0", 0, 2)
    ledger.put(payload("0-1"))
    assert ledger.take(0) is None
    assert ledger.status().bound_steps == 0


def test_the_manifest_says_what_the_payloads_hold(make: Make) -> None:
    ledger = make(groups_per_step=1)
    ledger.lease("w0", 0, 1)
    ledger.put(payload("0-1", rewards=(0.1, 1 / 3, 2.0), newest=1))
    manifest = ledger.take(0)
    assert manifest is not None
    (group,) = manifest.groups
    assert (group.index, group.prompt_tokens, group.completion_tokens) == (0, 5, (3, 4, 5))
    assert group.rewards == (0.1, 1 / 3, 2.0)
    assert (group.min_policy_version, group.max_policy_version) == (0, 1)
    (packed,) = ledger.payloads(["0-1"])
    assert tuple(s.reward for s in unpack_scored(packed).scores) == group.rewards


@pytest.mark.parametrize(("policy", "fate"), [("requeue", ["0-2"]), ("drop", ["6-1"])])
def test_a_group_behind_a_straggler_is_dropped_and_not_trained_too_late(
    make: Make, policy: str, fate: list[str]
) -> None:
    ledger = make(stale_policy=policy)
    ledger.lease("straggler", 0, 1)
    for step in range(2):
        for lease in ledger.lease("w0", step, 2):
            ledger.put(payload(lease.group_id, version=step))
        assert ledger.take(step) is not None
    assert ids(ledger.lease("w0", 2, 1)) == ["5-1"]
    assert ledger.put(payload("0-1", version=0)) is PutOutcome.ACCEPTED
    assert ledger.put(payload("5-1", version=2)) is PutOutcome.ACCEPTED
    assert ledger.take(2) is None  # 2 - 0 > 1; the drop stays although nothing is bound
    assert ledger.status().dropped_by_reason == {"stale": 1}
    assert ids(ledger.lease("w0", 2, 1)) == fate


def overtake(ledger: Ledger, first: int, last: int) -> None:
    """Train the steps `first` to `last` on groups that worker w0 leases and finishes at once."""
    for step in range(first, last + 1):
        for lease in ledger.lease("w0", step, 2):
            ledger.put(payload(lease.group_id, version=step))
        assert ledger.take(step) is not None


@pytest.fixture
def reserved(make: Make) -> Ledger:
    """Prompt 0 returned too old once. Group 0-2 is in flight from policy 2, and step 2 is trained without it."""
    ledger = make(reserve_after_stale=1)
    ledger.lease("straggler", 0, 1)
    overtake(ledger, 0, 1)
    ledger.put(payload("0-1", version=0))
    assert ledger.take(2) is None  # drops 0-1
    assert ids(ledger.lease("straggler", 2, 1)) == ["0-2"]
    overtake(ledger, 2, 2)
    return ledger


def test_the_last_step_that_can_train_a_reserved_group_waits_for_it(reserved: Ledger) -> None:
    for lease in reserved.lease("w0", 3, 8):
        reserved.put(payload(lease.group_id, version=3))
    assert (reserved.status().ready, reserved.status().awaited) == (3, 1)
    assert reserved.take(3) is None
    reserved.put(payload("0-2", version=2))
    manifest = reserved.take(3)
    assert manifest is not None
    assert ids(manifest.groups)[0] == "0-2"  # last to complete, and too old for the next step
    assert (reserved.status().awaited, reserved.status().dropped_by_reason) == (0, {"stale": 1})


@pytest.mark.parametrize("loss", ["worker", "lease", "failure"])
def test_a_step_does_not_wait_for_a_reserved_group_that_is_lost(reserved: Ledger, clock: Clock, loss: str) -> None:
    for lease in reserved.lease("w0", 3, 8):
        reserved.put(payload(lease.group_id, version=3))
    assert reserved.take(3) is None
    if loss == "worker":
        reserved.release_worker("straggler")
    elif loss == "lease":
        clock.now += 60
        assert reserved.expire() == ["0-2"]
    else:
        reserved.fail("0-2", "VerifierError", infrastructure=False)
    assert reserved.status().awaited == 0
    assert reserved.take(3) is not None
    assert ids(reserved.lease("w0", 4, 1)) == ["0-3"]
    overtake(reserved, 4, 4)
    assert reserved.status().awaited == 1  # a loss does not end the reservation


def test_a_group_that_never_was_stale_is_waited_for_only_if_all_are(make: Make) -> None:
    ledger = make(reserve_after_stale=0)
    ledger.lease("straggler", 0, 1)
    overtake(ledger, 0, 0)
    for lease in ledger.lease("w0", 1, 8):
        ledger.put(payload(lease.group_id, version=1))
    assert (ledger.status().ready, ledger.status().awaited) == (3, 1)
    assert ledger.take(1) is None
    ledger.put(payload("0-1", version=0))
    assert ledger.take(1) is not None


def test_a_lowered_bound_does_not_make_a_step_wait_for_what_it_cannot_train(reserved: Ledger, folder: Path) -> None:
    reserved.close()
    with closing(Ledger.open(folder / "ledger.sqlite", rules(max_staleness=0), run_id="run-1")) as ledger:
        for lease in ledger.lease("w0", 3, 8):
            ledger.put(payload(lease.group_id, version=3))
        assert ledger.status().awaited == 0
        for lease in ledger.lease("w0", 4, 8):
            ledger.put(payload(lease.group_id, version=4))
        assert ledger.take(3) is not None


def test_steps_are_taken_one_after_the_other(make: Make) -> None:
    ledger = make()
    with pytest.raises(IntegrityError, match="take: expected step 0 or an earlier one, got 1"):
        ledger.take(1)
    train(ledger, 1)
    with pytest.raises(IntegrityError, match="roll back to policy 0"):
        ledger.take(0)


def test_commit_catches_up_after_a_crash_and_may_be_repeated(make: Make) -> None:
    ledger = make()
    train(ledger, 4, checkpoint_every=2)
    ledger.rollback(2)
    for _ in range(2):
        ledger.commit(4, "step_000004")  # it was whole when the process died
    assert (ledger.status().trained_steps, ledger.status().trained) == (4, 8)
    assert ledger.rollback(4).steps == ()


def test_a_checkpoint_from_elsewhere_is_refused(make: Make) -> None:
    ledger = make()
    train(ledger, 2)
    with pytest.raises(IntegrityError, match="policy 3, but the ledger has batches of 2 steps only"):
        ledger.commit(3, "step_000003")
    assert ledger.status().trained_steps == 2


def test_rollback_gives_the_same_batches_again_and_new_ones_after(make: Make) -> None:
    ledger = make()
    train(ledger, 2)
    train(ledger, 2, checkpoint_every=100)
    before = [ledger.take(step) for step in (2, 3)]
    undone = ledger.rollback(1)
    assert (undone.steps, undone.groups, undone.trained_groups) == ((1, 2, 3), 6, 2)
    assert ledger.status().trained_steps == 1
    assert ledger.status().ready == 0  # bound groups stay with their step
    assert [ledger.take(step) for step in (2, 3)] == before
    train(ledger, 1)
    assert ledger.status().trained_steps == 5


def test_rollback_wants_the_checkpoint_committed(make: Make) -> None:
    ledger = make()
    train(ledger, 2, checkpoint_every=100)
    with pytest.raises(IntegrityError, match="only 0 steps are committed; commit its checkpoint first"):
        ledger.rollback(1)


def test_pruning_keeps_what_the_last_two_checkpoints_may_need(make: Make) -> None:
    ledger = make(keep_payload_steps=0, dynamic_sampling=True)
    ledger.lease("w0", 0, 1)
    assert ledger.put(payload("0-1", rewards=(1.0, 1.0))) is PutOutcome.NO_SIGNAL
    train(ledger, 2, checkpoint_every=2)
    assert len(ledger.payloads(["0-1", "1-1"])) == 2  # the first policy is still a way back
    train(ledger, 2, checkpoint_every=2)
    for gone in ("0-1", "1-1", "4-1"):
        with pytest.raises(IntegrityError, match=f"group {gone} has no payload"):
            ledger.payloads([gone])
    with pytest.raises(IntegrityError, match="payloads of steps before 2 are pruned"):
        ledger.rollback(1)
    undone = ledger.rollback(2)
    assert len(ledger.payloads([f"{i}-1" for i in range(5, 9)])) == undone.groups == 4


def test_an_abandoned_checkpoint_does_not_count_when_payloads_are_removed(make: Make) -> None:
    ledger = make(keep_payload_steps=0)
    train(ledger, 5, checkpoint_every=2)
    ledger.rollback(2)
    ledger.commit(5, "step_000005")  # the one before it is now policy 2, not 4
    assert ledger.rollback(2).steps == (2, 3, 4)


def test_published_digests_cannot_change(make: Make) -> None:
    ledger = make()
    ledger.publish(3, 0, "aa")
    ledger.publish(3, 0, "aa")
    ledger.publish(3, 1, "bb")
    with pytest.raises(IntegrityError, match="policy 3 of incarnation 0: expected the published digest aa, got bb"):
        ledger.publish(3, 0, "bb")


# -- looking


def test_status_counts_everything_once(make: Make, clock: Clock) -> None:
    ledger = make()
    train(ledger, 2)
    train(ledger, 1, checkpoint_every=100)
    ledger.lease("w1", 3, 1)
    clock.now += 5
    ledger.lease("w2", 3, 3)
    ledger.put(payload("8-1", version=3))
    ledger.fail("7-1", "EngineDied", infrastructure=True)
    status = ledger.status()
    assert (status.leased, status.scored, status.ready, status.taken, status.trained) == (2, 1, 1, 2, 4)
    assert (status.dropped, status.queued, status.cursor, status.admitted) == (1, 1, 10, 9)
    assert (status.bound_steps, status.trained_steps, status.trained_frontier) == (3, 2, 4)
    assert (status.oldest_lease_s, status.oldest_lease_group, status.oldest_lease_worker) == (5.0, "6-1", "w1")


def test_a_reader_finds_groups_while_the_run_goes_on(make: Make, folder: Path) -> None:
    ledger = make(dynamic_sampling=True)
    train(ledger, 1)
    ledger.lease("w1", 1, 3)
    ledger.put(payload("2-1", version=1, rewards=(0.0, 0.5), text="Wait, LET me see"))
    ledger.put(payload("3-1", version=1, error="VerifierError"))
    reader = LedgerReader.open(folder / "ledger.sqlite", run_id="run-1")
    assert ids(reader.groups()) == ["0-1", "1-1", "2-1", "3-1", "4-1"]
    assert ids(reader.groups(step=0)) == ["0-1", "1-1"]
    assert ids(reader.groups(state="leased")) == ["4-1"]
    assert ids(reader.groups(min_reward=0.4, max_reward=0.6)) == ["2-1"]
    assert ids(reader.groups(max_reward=0.6, state="trained")) == ["0-1", "1-1"]
    assert ids(reader.groups(text="let me")) == ["2-1"]
    assert ids(reader.groups(text="question 3")) == ["3-1"]
    (failed,) = reader.groups(state="dropped")
    assert (failed.reason, failed.summary, failed.has_payload) == ("VerifierError", None, True)
    assert reader.payloads(["2-1"]) == ledger.payloads(["2-1"])
    ledger.release_worker("w1")
    assert reader.status() == ledger.status()
    reader.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups_per_step": 0}, "groups_per_step: expected at least 1, got 0"),
        ({"max_staleness": -1}, "max_staleness: expected at least 0, got -1"),
        ({"max_attempts": 0}, "max_attempts: expected at least 1, got 0"),
        ({"keep_payload_steps": -1}, "keep_payload_steps: expected at least 0, got -1"),
        ({"lease_timeout_s": 0.0}, r"lease_timeout_s: expected a positive number, got 0\.0"),
        ({"stale_policy": "keep"}, "stale_policy: expected 'requeue' or 'drop', got 'keep'"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rules(**change)
