"""Calls of other actors without a cluster: what is repeated, for how long, and whom a failure is blamed on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from ray.exceptions import RayTaskError

from actors import remote
from actors.remote import Asker
from actors.reward import RewardWorker
from r1ray.codec import pack_rollout
from r1ray.config.schema import Config
from r1ray.errors import InfrastructureError
from r1ray.ledger import Ledger
from r1ray.rewards import endpoint as endpoint_module
from tests.unit.endpoint_support import Answer, endpoint
from tests.unit.ledger_support import new_ledger
from tests.unit.reward_support import reward
from tests.unit.scripted import group


def get(answer: Callable[[], Any], timeout: float) -> Any:
    """`ray.get` of a call that is made now: what its method raises arrives as Ray hands it on."""
    try:
        return answer()
    except Exception as e:
        raise RayTaskError("score_and_put", str(e), e).as_instanceof_cause() from None


@pytest.fixture(autouse=True)
def _no_cluster_and_no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote.ray, "get", get)
    monkeypatch.setattr(remote, "RETRY_S", 0.0)
    monkeypatch.setattr(endpoint_module, "FIRST_PAUSE_S", 0.0)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = new_ledger(tmp_path, max_attempts=1)
    yield ledger
    ledger.close()


def judged_by(url: str, outage_s: float) -> Config:
    config = Config()
    config.rewards = [reward("judge", url=url, model="m", retries=0)]
    config.recovery.outage_s = outage_s
    return config


def deliver(config: Config, ledger: Ledger, groups: list[bytes]) -> list[str]:
    worker = RewardWorker(config, lambda payloads, atomic: [str(ledger.put(p)) for p in payloads])
    try:
        call = lambda: lambda: worker.score_and_put(groups, False)  # noqa: E731  a remote call, and its answer
        outcomes: list[str] = Asker(config).ask(call, "a reward worker")
        return outcomes
    finally:
        worker.close()


def test_while_a_judge_is_down_groups_wait_and_no_prompt_is_blamed(ledger: Ledger) -> None:
    leases = ledger.lease("w", 0, 2)
    down: list[Answer] = [(503, "down")] * 10
    with endpoint(*down, (200, "Score: 5")) as (url, asked):
        groups = [pack_rollout(group(x.index)) for x in leases]
        outcomes = deliver(judged_by(url, 60.0), ledger, groups)
    assert set(outcomes) <= {"accepted", "duplicate"}
    assert len(asked) > len(down)
    status = ledger.status()
    assert (status.scored, status.dropped) == (2, 0)


def test_an_outage_that_does_not_end_is_named_and_no_prompt_is_blamed(ledger: Ledger) -> None:
    (lease,) = ledger.lease("w", 0, 1)
    with endpoint((503, "down")) as (url, _):
        told = r"a reward worker: group 0-1 could not be judged: .*judge: .*answered 503.*recovery.outage_s=0.05"
        with pytest.raises(InfrastructureError, match=told):
            deliver(judged_by(url, 0.05), ledger, [pack_rollout(group(lease.index))])
    status = ledger.status()
    assert (status.leased, status.dropped) == (1, 0)


def test_a_reward_worker_goes_through_all_groups_before_it_tells_of_one_that_could_not_be_judged(
    ledger: Ledger,
) -> None:
    leases = ledger.lease("w", 0, 2)

    def answer(prompt: str) -> Answer:
        return (503, "down") if "question 0" in prompt else (200, "Score: 5")

    with endpoint(answer) as (url, _), pytest.raises(InfrastructureError, match="group 0-1"):
        deliver(judged_by(url, 0.0), ledger, [pack_rollout(group(x.index)) for x in leases])
    status = ledger.status()
    assert (status.leased, status.scored) == (1, 1)


def test_what_is_no_outage_is_raised_at_once() -> None:
    calls = []

    def broken() -> None:
        calls.append(1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Asker(Config()).ask(lambda: broken, "a reward worker")
    assert calls == [1]
