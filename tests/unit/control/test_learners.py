"""The learner with fake ranks: the ends of calls, and the pauses between restarts."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from r1ray.config.schema import Config
from r1ray.control import calls, learners
from r1ray.control.handles import SupervisedApi
from r1ray.control.learners import LearnerGroup, LearnerLostError, Restarts
from r1ray.errors import DiskFull, IntegrityError
from r1ray.run.notices import notice
from tests.unit.scripted import FakeGang, FakeHandle


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


def group_of(gang: FakeGang, ranks: int = 1, **options: Any) -> LearnerGroup[SupervisedApi]:
    config = Config()
    config.learner.ranks, config.deadlines.actor_start_s = ranks, 900.0
    options = {"tick": lambda: None, "on_event": lambda kind, **fields: None, **options}
    return LearnerGroup(config, reserve=lambda: gang, **options)


def fake_rank(rank: int, *, host: str) -> FakeHandle:
    return FakeHandle(
        f"learner-{rank}",
        address=lambda: host,
        listen=lambda host: 0 if rank else 100,
        setup=lambda host, port: {"place": {"pid": 1, "node": "n"}},
    )


def test_a_group_that_is_ended_while_it_is_asked_is_lost() -> None:
    rank = FakeHandle("learner-0", train_step=lambda: 1)
    group = group_of(FakeGang(lambda _: rank), tick=lambda: group.kill())
    group.ranks = [rank]
    for _ in range(2):  # ended by the tick behind the last answer; and before
        with pytest.raises(LearnerLostError, match="killed during: train"):
            group.call(lambda rank: rank.start(SupervisedApi.train_step), deadline_s=9.0, what="train")


def test_no_rank_joins_the_others_before_all_of_them_run() -> None:
    """A rank whose node boots for minutes must not use up the deadline of a collective of the others."""
    ranks = [fake_rank(i, host=f"10.0.0.{i}") for i in range(3)]
    ranks[2].hold = {"address"}
    seen = []

    def tick() -> None:
        if ranks[2].pending and not ranks[2].pending[0].done():
            seen.append([[method for method, *_ in rank.calls] for rank in ranks])
            ranks[2].pending[0].set_result("10.0.0.2")

    gang = FakeGang(lambda rank: ranks[rank])
    group_of(gang, ranks=3, tick=tick).start()
    assert seen == [[["address"]] * 3]
    assert [rank.calls[-1] for rank in ranks] == [("setup", ("10.0.0.0", 100), {})] * 3
    assert not gang.released


def test_ranks_on_one_host_meet_on_its_loopback_address() -> None:
    ranks = [fake_rank(i, host="10.0.0.7") for i in range(2)]
    group_of(FakeGang(lambda rank: ranks[rank]), ranks=2).start()
    for rank in ranks:
        assert rank.calls == [("address", (), {}), ("listen", ("127.0.0.1",), {}), ("setup", ("127.0.0.1", 100), {})]


def test_a_learner_waits_for_its_nodes_says_so_and_is_lost_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    now, events = [0.0], []

    def tick() -> None:
        now[0] += 60.0

    monkeypatch.setattr(learners.time, "monotonic", lambda: now[0])
    gang = FakeGang(lambda rank: pytest.fail("a rank was started without its nodes"), held=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "wait", lambda *_, **__: None)
        patch.setattr(calls.time, "monotonic", lambda: now[0])
        group = group_of(gang, tick=tick, on_event=lambda kind, **fields: events.append((kind, fields)))
        with pytest.raises(
            LearnerLostError, match=r"waited for nodes for the learner, .* within 900 s .*actor_start_s"
        ):
            group.start()
    assert gang.released
    assert [kind for kind, _ in events] == ["learner_waiting"] * 7
    assert [fields["seconds"] for _, fields in events] == [60.0, 180.0, 300.0, 420.0, 540.0, 660.0, 780.0]
    assert "nodes for the learner" in notice({"kind": events[0][0], **events[0][1]})


def raises(error: Exception | None) -> Any:
    def answer(*_: Any) -> None:
        if error is not None:
            raise error

    return answer


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([None, DiskFull("no room"), None], DiskFull),
        ([DiskFull("no room")] * 3, DiskFull),
        ([DiskFull("no room"), None, ConnectionError("died")], LearnerLostError),
        ([DiskFull("no room"), IntegrityError("of another run"), None], IntegrityError),
    ],
)
def test_a_full_disk_on_any_ranks_leaves_the_group_as_it_was(
    errors: list[Exception | None], expected: type[Exception]
) -> None:
    """All ranks write a checkpoint, and all learn that one of them could not."""
    ranks = [FakeHandle(f"learner-{i}", save_checkpoint=raises(error)) for i, error in enumerate(errors)]
    gang = FakeGang(lambda rank: ranks[rank])
    group = group_of(gang, ranks=3)
    group.ranks = list(ranks)
    with pytest.raises(expected):
        group.call(
            lambda rank: rank.start(SupervisedApi.save_checkpoint, "folder", "run-1"), deadline_s=9.0, what="save"
        )
    assert bool(group.ranks) == (expected is DiskFull)
