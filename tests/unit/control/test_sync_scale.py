"""Weight syncs of many senders and receivers, real ones in threads: rendezvous, abort, late joiners,
a death in each phase.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1ray.errors import ProcessDied
from tests.unit.sync_support import Stores, SyncWorld

SENDERS, RECEIVERS, HOSTS = 8, 64, 4
BUCKET_DEADLINE_S = 30.0
SOON_S = 15.0
"""Well below the deadline of a bucket: an abort ended the waits, not the deadline."""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncWorld]:
    stores = Stores(monkeypatch)
    made = SyncWorld(
        senders=SENDERS,
        receivers=RECEIVERS,
        hosts=HOSTS,
        folder=tmp_path,
        deadline_s=60.0,
        bucket_deadline_s=BUCKET_DEADLINE_S,
    )
    yield made
    made.close()
    stores.close()


def test_all_receive_with_one_in_the_group_for_each_host_and_late_joiners_come_in(
    world: SyncWorld, tmp_path: Path
) -> None:
    report = world.publish()
    assert (len(report.synced), report.stale, report.out, report.epoch) == (RECEIVERS, {}, {}, 1)
    assert world.serve_the_weights(report.synced)
    assert sum(not handle.api.follows for handle in world.workers.values()) == HOSTS
    again = world.publish()  # in the same group
    assert (len(again.synced), again.epoch, again.digest != report.digest) == (RECEIVERS, 1, True)
    assert world.serve_the_weights(again.synced)

    late = world.add()
    reports = threading.Event()
    world.traps.set[late, "report"] = lambda: reports.wait(20.0)
    timer = threading.Timer(0.5, reports.set)
    timer.start()
    joined = world.publish()
    assert (len(joined.synced), joined.epoch, joined.retried) == (RECEIVERS + 1, 2, ())
    assert world.serve_the_weights(joined.synced)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("victim", "phase"),
    [
        ("rollout-03", "report"),  # before the rendezvous is complete
        ("rollout-03", "joined"),  # the leader of a host, before the group has formed
        ("rollout-03", "bucket"),  # the leader, during the transfer
        ("rollout-11", "joined"),  # a follower, before it has mapped the copy
        ("rollout-11", "received"),  # a follower that has everything and does not answer
    ],
)
def test_a_death_costs_the_others_no_deadline(world: SyncWorld, tmp_path: Path, victim: str, phase: str) -> None:
    world.die(victim, phase)
    began = time.monotonic()
    report = world.publish()
    seconds = time.monotonic() - began
    print(f"\n{victim} died: {phase}: {seconds:.1f} s")
    assert seconds < SOON_S
    assert set(report.out) == {victim}
    assert (len(report.synced), report.stale) == (RECEIVERS - 1, {})
    assert world.serve_the_weights(report.synced)
    world.traps.end()
    world.wait_for_receivers(SOON_S)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("phase", ["report", "bucket"])
def test_a_sender_that_dies_is_named_and_nobody_waits_for_it(world: SyncWorld, tmp_path: Path, phase: str) -> None:
    world.die("learner-5", phase)
    began = time.monotonic()
    with pytest.raises(ProcessDied, match="learner-5 died"):
        world.publish()
    world.wait_for_receivers(SOON_S)
    assert time.monotonic() - began < SOON_S
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_ends_leaves_no_member_waiting(world: SyncWorld, tmp_path: Path) -> None:
    def ends() -> None:
        world.ends = True
        world.traps.hang()

    world.traps.set["rollout-03", "bucket"] = ends
    began = time.monotonic()
    report = world.publish()
    assert report.synced == ()
    world.wait_for_receivers(SOON_S, but="rollout-03")
    assert time.monotonic() - began < SOON_S
    world.traps.end()
    world.wait_for_receivers(SOON_S)
    assert list(tmp_path.iterdir()) == []
