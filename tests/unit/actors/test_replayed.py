"""Batches from the groups of a recorded run: their order, exactly once, and what ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from actors.queue import QueueOwner
from actors.replayed import RECORDING, ReplayedGroups
from r1ray.codec import unpack_scored
from r1ray.errors import InfrastructureError, IntegrityError, NoTrainableGroups
from r1ray.ledger import Ledger, LedgerReader, audit
from r1ray.ledger.records import NO_STALENESS
from r1ray.run.recording import RECORDED, Replay
from r1ray.types import FOREIGN_POLICY, ScoredGroup
from tests.unit.ledger_support import RUN, place_in, rules
from tests.unit.recorded import RUN_ID, extend, record, replay_of

SETTINGS = rules(max_staleness=NO_STALENESS)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    return record(tmp_path / "recorded")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """That of the replay."""
    made = Ledger.create(tmp_path / "ledger.sqlite", SETTINGS, run_id=RUN)
    yield made
    made.close()


def take(ledger: Ledger, replay: Replay, step: int) -> list[ScoredGroup]:
    """The groups of a step, as the queue's process takes them."""
    if (manifest := ledger.take(step)) is None:
        while ReplayedGroups(replay).fill(ledger, step):
            pass
        manifest = ledger.take(step)
    assert manifest is not None
    return [unpack_scored(p) for p in ledger.payloads([g.group_id for g in manifest.groups])]


def origins(groups: list[ScoredGroup]) -> list[str]:
    return [group.rollout.prompt.meta[RECORDED]["group_id"] for group in groups]


def all_origins(ledger: Ledger, replay: Replay, steps: int) -> list[list[str]]:
    return [origins(take(ledger, replay, step)) for step in range(steps)]


def test_groups_come_in_the_order_in_which_they_were_trained(ledger: Ledger, recorded: Path, tmp_path: Path) -> None:
    replay = replay_of(recorded)
    assert all_origins(ledger, replay, 4) == [["1-1", "0-1"], ["3-1", "2-1"], ["5-1", "4-1"], ["7-1", "6-1"]]
    ledger.commit(4, "step_000004")
    assert audit(tmp_path / "ledger.sqlite", [4]).violations == ()


def test_the_batches_of_a_replay_may_have_another_size(tmp_path: Path, recorded: Path) -> None:
    settings = rules(groups_per_step=3, max_staleness=NO_STALENESS)
    with closing(Ledger.create(tmp_path / "l.sqlite", settings, run_id=RUN)) as ledger:
        assert all_origins(ledger, replay_of(recorded), 2) == [["1-1", "0-1", "3-1"], ["2-1", "5-1", "4-1"]]


def test_large_batches_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: Path) -> None:
    monkeypatch.setattr("actors.replayed.AT_ONCE", 3)
    settings = rules(groups_per_step=8, max_staleness=NO_STALENESS)
    with closing(Ledger.create(tmp_path / "l.sqlite", settings, run_id=RUN)) as ledger:
        source = ReplayedGroups(replay_of(recorded))
        assert [source.fill(ledger, 0) for _ in range(4)] == [True, True, True, False]
        assert all_origins(ledger, replay_of(recorded), 1) == [["1-1", "0-1", "3-1", "2-1", "5-1", "4-1", "7-1", "6-1"]]


def test_tokens_log_probabilities_and_scores_are_the_recorded_ones(ledger: Ledger, recorded: Path) -> None:
    with closing(LedgerReader.open(recorded / "ledger.sqlite")) as reader:
        payload = reader.payload_at(1, 0)
    assert payload is not None
    there, here = unpack_scored(payload), take(ledger, replay_of(recorded), 0)[0]
    here = take(ledger, replay_of(recorded), 1)[0]
    assert here.scores == there.scores
    for a, b in zip(here.rollout.completions, there.rollout.completions, strict=True):
        np.testing.assert_array_equal(a.token_ids, b.token_ids)
        np.testing.assert_array_equal(a.behavior_logprobs, b.behavior_logprobs)
    assert (here.rollout.min_policy_version, here.rollout.max_policy_version) == (FOREIGN_POLICY, FOREIGN_POLICY)
    assert there.rollout.max_policy_version == 1
    assert (here.rollout.group_id, here.rollout.prompt.index) == ("2-1", 2)
    assert here.rollout.prompt.meta[RECORDED] == {"group_id": "3-1", "step": 1}


def test_each_pass_goes_through_all_groups_once_more(ledger: Ledger, recorded: Path) -> None:
    replay = replay_of(recorded, steps=2, epochs=2)
    assert all_origins(ledger, replay, 4) == 2 * [["1-1", "0-1"], ["3-1", "2-1"]]
    with pytest.raises(NoTrainableGroups, match=r"step 4 .* all 4 groups .* used 2 times .* run\.steps to 4"):
        take(ledger, replay, 4)


def test_a_repeated_step_gets_its_batch_again(ledger: Ledger, recorded: Path) -> None:
    replay = replay_of(recorded)
    first = all_origins(ledger, replay, 3)
    ledger.commit(1, "step_000001")
    ledger.rollback(1)
    assert [origins(take(ledger, replay, step)) for step in (1, 2)] == first[1:]


@pytest.mark.parametrize("new_driver", [False, True], ids=["queue", "run"])
def test_a_kill_between_lease_and_storing_costs_no_group(ledger: Ledger, recorded: Path, new_driver: bool) -> None:
    replay = replay_of(recorded)
    take(ledger, replay, 0)
    assert len(ledger.lease(RECORDING, 1, 2)) == 2
    if new_driver:
        ledger.release_all()
    rest = [origin for step in (1, 2, 3) for origin in origins(take(ledger, replay, step))]
    assert sorted(rest) == ["2-1", "3-1", "4-1", "5-1", "6-1", "7-1"]
    with pytest.raises(NoTrainableGroups):
        take(ledger, replay, 4)


def test_groups_without_signal_are_left_out_on_request(tmp_path: Path) -> None:
    """Recorded without dynamic sampling, replayed with it."""
    recorded = record(tmp_path / "recorded", rewards=lambda index: (1.0, 1.0) if index in (0, 3, 4) else (0.0, 1.0))
    path = tmp_path / "l.sqlite"
    with closing(Ledger.create(path, rules(dynamic_sampling=True, max_staleness=NO_STALENESS), run_id=RUN)) as ledger:
        replay = replay_of(recorded)
        assert all_origins(ledger, replay, 2) == [["1-1", "2-1"], ["5-1", "7-1"]]
        with pytest.raises(NoTrainableGroups):  # 6-1 is left, which is no batch
            take(ledger, replay, 2)
        ledger.commit(2, "step_000002")
    assert audit(path, [2]).violations == ()


def test_a_run_under_way_is_read_and_neither_changed_nor_held_up(ledger: Ledger, recorded: Path) -> None:
    replay = replay_of(recorded)
    with closing(Ledger.open(recorded / "ledger.sqlite", run_id=RUN_ID)) as live:
        begun = live.status()
        take(ledger, replay, 0)
        assert live.status() == begun
        extend(live, 2)
        live.rollback(2)  # its learner restarts from an older checkpoint: the batches stay bound
        rest = [origins(take(ledger, replay, step)) for step in (1, 2, 3)]
    assert rest == [["3-1", "2-1"], ["5-1", "4-1"], ["7-1", "6-1"]]


def test_a_copy_of_the_ledger_is_enough(ledger: Ledger, recorded: Path) -> None:
    with closing(Ledger.open(recorded / "ledger.sqlite")) as live:
        live.stamp_copy()
    (recorded / "ledger.sqlite").rename(recorded / "ledger.copy.sqlite")
    assert all_origins(ledger, replay_of(recorded), 2) == [["1-1", "0-1"], ["3-1", "2-1"]]
    assert [path.name for path in recorded.glob("ledger*")] == ["ledger.copy.sqlite"]


def test_what_the_recorded_run_has_pruned_is_named(ledger: Ledger, tmp_path: Path) -> None:
    recorded = record(tmp_path / "recorded", keep=2)
    with pytest.raises(IntegrityError, match=r"slot 0 of step 0 is gone: .* queue\.keep_payload_steps=null"):
        take(ledger, replay_of(recorded), 0)
    assert all_origins(ledger, replay_of(recorded, first_step=2, steps=2), 1) == [["5-1", "4-1"]]


def test_another_run_in_its_place_or_none_is_refused(ledger: Ledger, recorded: Path, tmp_path: Path) -> None:
    replay = replay_of(recorded)
    run_json = recorded / "run.json"
    run_json.write_text(run_json.read_text().replace(RUN_ID, "bus-other"))
    with pytest.raises(IntegrityError, match="is the run bus-other, and this run trains on groups of bus-1a2b3c"):
        take(ledger, replay, 0)
    recorded.rename(tmp_path / "away")
    with pytest.raises(InfrastructureError, match="is not on this machine"):
        take(ledger, replay, 0)


def test_the_owner_of_the_ledger_fills_its_batches_until_it_is_to_stop(recorded: Path, tmp_path: Path) -> None:
    place = place_in(tmp_path)

    async def scenario() -> None:
        owner = QueueOwner(place, SETTINGS, RUN, replay=replay_of(recorded))
        await owner.open()
        first = await owner.take(0, 0.0)
        assert first is not None
        assert [g.group_id for g in first.groups] == ["0-1", "1-1"]
        assert {g.min_policy_version for g in first.groups} == {FOREIGN_POLICY}
        await owner.stop_leasing()
        assert await owner.take(1, 0.0) is None
        await owner.close()

    asyncio.run(scenario())
