"""Calls of other actors without a cluster: what is repeated, for how long, and whom a failure is blamed on."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray")

from ray.exceptions import ActorDiedError, OutOfDiskError, OutOfMemoryError, RayError, RayTaskError

from actors import handle
from actors.handle import RayHandle, RetryingClient, cause_of_death
from actors.remote import PULSE, QueueAndRewards, RolloutActor
from actors.reward import RewardWorker
from actors.reward_calls import for_one_call, scoring_timeout_s
from r1ray.codec import pack_rollout
from r1ray.config.schema import Config
from r1ray.control.handles import RewardApi, RolloutApi
from r1ray.errors import InfrastructureError, ProcessDied
from r1ray.ledger import Ledger
from r1ray.rewards.learned import endpoint as endpoint_module
from tests.unit.endpoint_support import Answer, endpoint
from tests.unit.ledger_support import new_ledger
from tests.unit.reward_support import reward
from tests.unit.scripted import group


def done(answer: Callable[[], Any]) -> Future[Any]:
    """A call that is over."""
    future: Future[Any] = Future()
    try:
        future.set_result(answer())
    except Exception as e:
        future.set_exception(e)
    return future


def ref(answer: Callable[[], Any]) -> Any:
    """Ray's reference to the result of a call that is over: an error of its method arrives as Ray raises it."""

    def as_ray() -> Any:
        try:
            return answer()
        except RayError:
            raise
        except Exception as e:
            raise RayTaskError("method", str(e), e).as_instanceof_cause() from None

    return SimpleNamespace(future=lambda: done(as_ray))


class Actor:
    """A Ray actor, every method of which answers what `answer` returns for its arguments."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self._answer = answer

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *args: ref(lambda: self._answer(*args)))


@pytest.fixture(autouse=True)
def _no_cluster_and_no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handle, "RETRY_S", 0.0)
    monkeypatch.setattr(endpoint_module, "FIRST_PAUSE_S", 0.0)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = new_ledger(tmp_path, max_attempts=1)
    yield ledger
    ledger.close()


def judged_by(url: str, outage_s: float) -> Config:
    config = Config()
    config.rewards = [reward("judge", url=url, model="m", retries=0)]
    config.recovery.outage_timeout_s = outage_s
    return config


def deliver(config: Config, ledger: Ledger, groups: list[bytes]) -> list[str]:
    one_at_a_time = threading.Lock()

    def put(payloads: list[bytes], atomic: bool) -> list[str]:
        with one_at_a_time:  # as the queue's actor does
            return [str(ledger.put(p)) for p in payloads]

    worker = RewardWorker(config, put)
    try:
        actor: RayHandle[RewardApi] = RayHandle("reward-0", Actor(worker.score_and_put))
        return RetryingClient(config).call(
            lambda: actor.start(RewardApi.score_and_put, groups, False), "a reward worker"
        )
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
        told = (
            r"a reward worker: group 0-1 could not be scored: .*judge: .*answered 503.*recovery.outage_timeout_s=0.05"
        )
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
        RetryingClient(Config()).call(lambda: done(broken), "a reward worker")
    assert calls == [1]


def services(monkeypatch: pytest.MonkeyPatch, config: Config, calls: list[list[bytes]]) -> QueueAndRewards:
    """Reward workers that answer with the groups that they were given, and note them in `calls`."""

    def answer(groups: list[bytes], atomic: bool = False) -> list[bytes]:
        calls.append(groups)
        return groups

    monkeypatch.setattr(handle.ray, "get_actor", lambda name: Actor(answer))
    return QueueAndRewards(config)


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The timeouts of the calls that a RetryingClient makes."""
    waits: list[float] = []

    def spy(futures: Any, timeout: float) -> Any:
        waits.append(timeout)
        return wait(futures, timeout)

    monkeypatch.setattr(handle, "wait", spy)
    return waits


def test_the_timeout_covers_programs_that_all_run_out_of_time_on_one_processor(
    monkeypatch: pytest.MonkeyPatch, seconds: list[float]
) -> None:
    config = Config()  # groups of 16, verifications of 10 s
    rewards = services(monkeypatch, config, [])
    rewards.deliver([b""] * 2)
    assert seconds[0] >= 2 * 16 * config.reward_worker.timeout_s + config.deadlines.rpc_s


def test_the_timeout_covers_a_reward_model_that_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config()
    without = scoring_timeout_s(config, 16)
    config.rewards = [reward("model/helpful", path="p"), reward("judge", url="http://x", model="m", timeout_s=30)]
    assert scoring_timeout_s(config, 16) == without + 600
    assert (
        scoring_timeout_s(config, 17) > scoring_timeout_s(config, 16) + 600
    )  # 68 questions of four callers: one more round


def test_the_timeout_covers_programs_with_many_tests() -> None:
    config = Config()
    config.rewards = [reward("accuracy/code", verifier="code", suite_timeout_s=90.0)]
    assert scoring_timeout_s(config, 16) >= 16 * 90
    config.rewards = [reward("cosine_length", verifier="code", verifier_params={"suite_timeout_s": 90.0})]
    assert scoring_timeout_s(config, 16) >= 16 * 90


def test_an_evaluation_is_scored_in_calls_of_bounded_size_in_its_order(
    monkeypatch: pytest.MonkeyPatch, seconds: list[float]
) -> None:
    calls: list[list[bytes]] = []
    rewards = services(monkeypatch, Config(), calls)
    groups = [str(i).encode() for i in range(20)]
    assert rewards.score(groups, 16) == groups
    assert [len(call) for call in calls] == [4] * 5
    assert set(seconds) == {scoring_timeout_s(Config(), 64) + Config().deadlines.rpc_s}
    assert [len(rewards.score(groups[:3], 100)), *map(len, calls[5:])] == [3, 1, 1, 1]


def test_a_call_takes_whole_groups_and_at_most_so_many_completions() -> None:
    outbox = deque(group(i, n=30) for i in range(5))
    assert [g.prompt.index for g in for_one_call(outbox, take_all=False)] == [0, 1]
    assert [g.prompt.index for g in for_one_call(outbox, take_all=True)] == [2, 3, 4]
    assert len(for_one_call(deque([group(0, n=100), group(1, n=1)]), take_all=False)) == 1


def test_an_outage_begins_with_the_first_failure_and_not_with_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(handle.time, "monotonic", lambda: now[0])

    def late(futures: list[Future[str]], timeout: float) -> Any:
        now[0] += timeout
        if now[0] >= 3000:
            futures[0].set_result("judged")
        return wait(futures, 0)

    monkeypatch.setattr(handle, "wait", late)
    monkeypatch.setattr(handle.time, "sleep", lambda seconds: None)
    assert RetryingClient(Config()).call(Future[str], "a reward worker", timeout_s=2000.0) == "judged"


@pytest.mark.parametrize("error", [OutOfMemoryError("killed"), ActorDiedError(), OutOfDiskError("no room for objects")])
def test_every_error_of_ray_about_an_actor_that_is_gone_is_retried(error: Exception) -> None:
    errors = [error, error]

    def answer(groups: list[bytes]) -> list[bytes]:
        if errors:
            raise errors.pop()
        return groups

    actor: RayHandle[RewardApi] = RayHandle("reward-0", Actor(answer))
    client = RetryingClient(Config())
    assert client.call(lambda: actor.start(RewardApi.score, [b"judged"]), "a reward worker") == [b"judged"]
    assert not errors


@pytest.mark.parametrize("error", [OutOfMemoryError("killed"), ActorDiedError()])
def test_an_actor_that_ray_killed_for_want_of_memory_has_died(error: Exception) -> None:
    def fail() -> None:
        raise error

    actor: RayHandle[RolloutApi] = RayHandle("rollout-0", Actor(fail))
    with pytest.raises(ProcessDied, match="rollout-0 died"):
        actor.start(RolloutApi.stats).result(0)


def test_weights_health_and_goodbyes_do_not_wait_behind_evaluations() -> None:
    for method in (RolloutActor.stats, RolloutActor.receive_weights, RolloutActor.drain):
        assert method.__ray_concurrency_group__ == PULSE


def test_the_cause_of_a_death_is_without_the_causes_that_ray_lists_for_any() -> None:
    text = (
        "The actor died unexpectedly before finishing this task.\n\tclass_name: RolloutProcess\n"
        "The actor is dead because its worker process has died. Worker exit detail: connection error code 2. End of "
        "file. "
        "Some common causes include: (1) the process was killed by the OOM killer, (2) ray stop --force is called."
    )
    assert cause_of_death(text) == (
        "The actor is dead because its worker process has died. Worker exit detail: connection error code 2. End of "
        "file."
    )
    assert cause_of_death("killed") == "killed"
