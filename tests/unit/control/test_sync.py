"""Membership, epochs, failures and digests of a weight sync, with fake processes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from r1ray.config.schema import SyncConfig
from r1ray.control.sync import WeightSync
from r1ray.errors import InfrastructureError, ProcessDied, ServedWeightsDiffer, WeightSyncError
from r1ray.transport.transfer import Applied, Sent
from tests.unit.scripted import FakeHandle


def learner(digest: str = "d") -> FakeHandle:
    return FakeHandle(
        "learner-0",
        open_epoch=lambda epoch, receivers: ("rendezvous", epoch, receivers),
        weight_specs=list,
        weight_shares=list,
        publish=lambda version, group: Sent(digest=digest, seconds=0.0, wire_bytes=8),
    )


def worker(name: str, digest: str = "d") -> FakeHandle:
    def receive_weights(*, version: int, **_: Any) -> Applied:
        return Applied(version=version, digest=digest, apply_s=0.0, digest_s=0.0)

    return FakeHandle(name, receive_weights=receive_weights)


def group_of(remote: FakeHandle) -> Any:
    return remote.calls[-1][2]["group"]


@pytest.fixture
def sync() -> WeightSync:
    return made()


def made(
    processes: int = 1,
    deadline_s: float = 0.1,
    abort: Any = lambda rendezvous, reason: False,
    stopping: Any = lambda: False,
) -> WeightSync:
    config = SyncConfig(deadline_s=deadline_s)
    return WeightSync(config, processes=processes, abort=abort, tick=lambda: None, stopping=stopping)


def test_a_group_is_formed_once_and_kept_while_membership_stays(sync: WeightSync) -> None:
    rank, a, b = learner(), worker("a"), worker("b")
    assert sync.publish([rank], {"a": a, "b": b}, 0).synced == ("a", "b")
    assert group_of(a) == (("rendezvous", 1, 2), 1)
    assert group_of(b) == (("rendezvous", 1, 2), 2)
    report = sync.publish([rank], {"a": a, "b": b}, 1)
    assert (report.epoch, group_of(a)) == (1, None)


def test_recomputed_tokens_of_all_workers_are_counted(sync: WeightSync) -> None:
    def receive_weights(*, version: int, **_: Any) -> Applied:
        return Applied(version=version, digest="d", apply_s=0.0, digest_s=0.0, recomputed_tokens=21)

    workers = {name: FakeHandle(name, receive_weights=receive_weights) for name in "ab"}
    assert sync.publish([learner()], workers, 0).recomputed_tokens == 42


def test_every_process_of_a_worker_has_a_rank_of_its_own() -> None:
    rank, a, b = learner(), worker("a"), worker("b")
    made(processes=4).publish([rank], {"a": a, "b": b}, 0)
    assert group_of(a) == (("rendezvous", 1, 8), 1)
    assert group_of(b) == (("rendezvous", 1, 8), 5)


def test_a_new_member_means_a_new_epoch(sync: WeightSync) -> None:
    rank, a, b = learner(), worker("a"), worker("b")
    sync.publish([rank], {"a": a}, 0)
    assert sync.publish([rank], {"a": a, "b": b}, 1).epoch == 2


def test_a_dead_worker_is_out_and_the_others_are_sent_to_again(sync: WeightSync) -> None:
    rank, a, b = learner(), worker("a"), worker("b")
    b.dead = True
    failing = iter([WeightSyncError("peer died")])

    def publish(version: int, group: Any) -> Sent:
        for error in failing:
            raise error
        return Sent(digest="d", seconds=0.0, wire_bytes=8)

    rank.methods["publish"] = publish
    report = sync.publish([rank], {"a": a, "b": b}, 4)
    assert report.synced == ("a",)
    assert set(report.out) == {"b"}
    assert report.epoch == 2  # the second transfer went through a group without b


def test_a_death_before_the_group_has_formed_aborts_it() -> None:
    rank, a, b = learner(), worker("a"), worker("b")
    b.dead = True
    rank.hold.add("publish")
    aborted: list[str] = []

    def abort(rendezvous: Any, reason: str) -> None:
        """As the rendezvous does: the members that wait in it end with an error."""
        aborted.append(reason)
        rank.hold.clear()
        for future in rank.pending:
            future.set_exception(WeightSyncError(reason))

    sync = made(deadline_s=60.0, abort=abort)
    report = sync.publish([rank], {"a": a, "b": b}, 1)
    assert aborted == ["b: ProcessDied: b died"]
    assert report.retried == (("b", "ProcessDied: b died"),)
    assert (report.synced, set(report.out), report.epoch) == (("a",), {"b"}, 2)


def test_a_failure_in_a_formed_group_aborts_it_at_once_and_its_cause_is_reported() -> None:
    rank, a, b = learner(), worker("a"), worker("b")
    aborted: list[tuple[Any, str]] = []

    def abort(rendezvous: Any, reason: str) -> None:
        """As in a real group: the members that wait end with an error."""
        aborted.append((rendezvous, reason))
        for remote in (rank, a):
            remote.hold.clear()
            remote.pending[-1].set_exception(WeightSyncError(f"aborted: {reason}"))

    errors = iter([WeightSyncError("no room for a buffer")])
    receive = b.methods["receive_weights"]

    def fail_once(*, version: int, **rest: Any) -> Applied:
        for error in errors if version == 2 else ():
            raise error
        result: Applied = receive(version=version, **rest)
        return result

    b.methods["receive_weights"] = fail_once
    sync = made(deadline_s=60.0, abort=abort)
    assert sync.publish([rank], {"a": a, "b": b}, 1).retried == ()
    rank.hold.add("publish")
    a.hold.add("receive_weights")
    began = time.monotonic()
    report = sync.publish([rank], {"a": a, "b": b}, 2)
    assert time.monotonic() - began < 30.0
    assert aborted == [(("rendezvous", 1, 2), "b: no room for a buffer")]
    assert (report.synced, report.stale, report.out) == (("a", "b"), {}, {})
    assert report.retried == (("b", "no room for a buffer"),)
    assert report.epoch == 2


def test_a_learner_rank_that_dies_ends_the_wait_for_the_others() -> None:
    rank, second, a = learner(), learner(), worker("a")
    second.name = "learner-1"
    rank.hold.add("publish")
    a.hold.add("receive_weights")
    second.dead = True
    aborted: list[str] = []
    sync = made(deadline_s=60.0, abort=lambda rendezvous, reason: aborted.append(reason))
    began = time.monotonic()
    with pytest.raises(ProcessDied, match="learner-1 died"):
        sync.publish([rank, second], {"a": a}, 1)
    assert time.monotonic() - began < 30.0
    assert aborted == ["learner-1: ProcessDied: learner-1 died"]


def test_wrong_weights_at_one_worker_do_not_abort_the_others() -> None:
    rank, a, b = learner(), worker("a"), worker("b")
    aborted: list[str] = []

    def differ(**_: Any) -> Applied:
        raise ServedWeightsDiffer("other values in lm_head")

    b.methods["receive_weights"] = differ
    sync = made(abort=lambda rendezvous, reason: aborted.append(reason))
    report = sync.publish([rank], {"a": a, "b": b}, 1)
    assert (report.synced, set(report.out), aborted) == (("a",), {"b"}, [])


def test_a_worker_that_keeps_failing_is_stale_not_out(sync: WeightSync) -> None:
    rank, a, b = learner(), worker("a"), worker("b")

    def refuse(**_: Any) -> Applied:
        raise WeightSyncError("cannot reach the store")

    b.methods["receive_weights"] = refuse
    report = sync.publish([rank], {"a": a, "b": b}, 1)
    assert (report.synced, set(report.stale), report.out) == (("a",), {"b"}, {})


def test_a_worker_that_does_not_answer_is_out(sync: WeightSync, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1ray.control.sync.GRACE_S", 0.0)
    rank, a, b = learner(), worker("a"), worker("b")
    b.hold.add("receive_weights")
    report = sync.publish([rank], {"a": a, "b": b}, 1)
    assert "sync.deadline_s" in report.out["b"]
    assert report.synced == ("a",)


def test_another_digest_takes_a_worker_out(sync: WeightSync) -> None:
    report = sync.publish([learner("right")], {"a": worker("a", "right"), "b": worker("b", "wrong")}, 1)
    assert report.synced == ("a",)
    assert "wrong" in report.out["b"]


def test_served_weights_that_differ_take_a_worker_out(sync: WeightSync) -> None:
    a = worker("a")

    def differ(**_: Any) -> Applied:
        raise ServedWeightsDiffer("other values in lm_head")

    a.methods["receive_weights"] = differ
    assert set(sync.publish([learner()], {"a": a}, 1).out) == {"a"}


@pytest.mark.parametrize(
    "error", [RuntimeError("Executor failed."), InfrastructureError("b has failed: Executor failed."), KeyError("wq")]
)
def test_what_is_no_failure_of_the_transfer_takes_a_worker_out(sync: WeightSync, error: Exception) -> None:
    rank, a, b = learner(), worker("a"), worker("b")

    def fail(**_: Any) -> Applied:
        raise error

    b.methods["receive_weights"] = fail
    report = sync.publish([rank], {"a": a, "b": b}, 1)
    assert (report.synced, report.stale, set(report.out)) == (("a",), {}, {"b"})
    assert type(error).__name__ in report.out["b"]


def test_a_worker_that_fails_every_group_does_not_hold_up_the_others() -> None:
    rank, a, b = learner(), worker("a"), worker("b")
    rank.hold.add("publish")  # until the rendezvous is aborted: b fails while the others wait for it
    aborted: list[str] = []

    def unreachable(**_: Any) -> Applied:
        raise WeightSyncError("cannot reach the store")

    def abort(rendezvous: Any, reason: str) -> None:
        aborted.append(reason)
        rank.pending[-1].set_exception(WeightSyncError(reason))
        if len(aborted) == 2:
            rank.hold.clear()

    b.methods["receive_weights"] = unreachable
    report = made(deadline_s=60.0, abort=abort).publish([rank], {"a": a, "b": b}, 1)
    assert aborted == ["b: cannot reach the store"] * 2
    assert (report.synced, set(report.stale), report.out) == (("a",), {"b"}, {})
    assert group_of(a) == (("rendezvous", 3, 1), 1)


def test_a_transfer_that_the_learner_did_not_finish_counts_for_no_worker(sync: WeightSync) -> None:
    rank, a = learner(), worker("a")

    def fail(version: int, group: Any) -> Sent:
        raise WeightSyncError("bucket deadline")

    rank.methods["publish"] = fail
    report = sync.publish([rank], {"a": a}, 1)
    assert (report.synced, set(report.stale)) == ((), {"a"})


def test_a_dead_learner_is_the_callers_business(sync: WeightSync) -> None:
    rank = learner()
    rank.dead = True
    with pytest.raises(ProcessDied):
        sync.publish([rank], {"a": worker("a")}, 1)


def test_publish_without_workers(sync: WeightSync) -> None:
    report = sync.publish([learner()], {}, 1)
    assert (report.synced, report.digest) == ((), "")


@pytest.mark.parametrize("failure", [WeightSyncError("aborted: the run ends"), ProcessDied("learner-0 died")])
def test_a_sync_is_abandoned_when_the_run_ends(failure: Exception) -> None:
    """The learner is free afterwards, to save; what it failed with of its own is raised."""
    rank, a, b, aborted = learner(), worker("a"), worker("b"), []
    rank.hold = {"publish"}
    b.hold = {"receive_weights"}

    def abort(rendezvous: Any, reason: str) -> None:
        aborted.append((rendezvous, reason))
        rank.pending[0].set_exception(failure)

    sync = made(deadline_s=60.0, abort=abort, stopping=lambda: bool(rank.pending))
    if isinstance(failure, ProcessDied):
        with pytest.raises(InfrastructureError, match="learner-0 died"):
            sync.publish([rank], {"a": a, "b": b}, 4)
    else:
        report = sync.publish([rank], {"a": a, "b": b}, 4)
        assert (report.synced, report.stale, report.out, report.retried) == ((), {}, {}, ())
    assert aborted == [(("rendezvous", 1, 2), "the run ends")]


def test_a_run_that_ends_publishes_no_more() -> None:
    rank, a = learner(), worker("a")
    assert made(stopping=lambda: True).publish([rank], {"a": a}, 4).synced == ()
    assert (rank.calls, a.calls) == ([], [])
