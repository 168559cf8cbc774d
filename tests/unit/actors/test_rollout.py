"""The rollout worker without Ray and vLLM: leases, deliveries, weight changes, failures."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from typing import Any

import pytest

from actors.rollout import RolloutWorker
from r1ray.codec import unpack_rollout
from r1ray.config.schema import Config
from r1ray.errors import DeadlineExceeded, InfrastructureError, ProcessDied, WeightSyncError
from r1ray.ledger.records import Lease
from r1ray.transport.transfer import WeightLayout
from r1ray.types import RolloutGroup, Sampling
from tests.unit.scripted import ScriptedEngine, prompt

WAIT_S = 10.0


class Services:
    """Leases whatever `offer` was given; collects deliveries in a queue."""

    def __init__(self) -> None:
        self.offers: queue.Queue[list[int]] = queue.Queue()
        self.delivered: queue.Queue[list[RolloutGroup]] = queue.Queue()
        self.asked: queue.Queue[tuple[int, int]] = queue.Queue()
        self.held: queue.Queue[list[str]] = queue.Queue()
        self.stored = threading.Event()
        self.stored.set()
        self.announced: list[int] = []
        self.failure: Exception | None = None

    def lease(self, worker_id: str, version: int, groups: int, held: list[str]) -> list[Lease]:
        self.asked.put((version, groups))
        self.held.put(held)
        indices = self.offers.get(timeout=WAIT_S)
        return [Lease(group_id=f"{i}-1", index=i, attempt=1, deadline=0.0) for i in indices]

    def serving(self, worker_id: str, version: int) -> None:
        self.announced.append(version)

    def deliver(self, groups: list[bytes]) -> None:
        if self.failure is not None:
            raise self.failure
        self.delivered.put([unpack_rollout(g) for g in groups])
        assert self.stored.wait(WAIT_S)

    def fail(self, group_id: str, reason: str) -> None: ...


class Prompts:
    task_at = staticmethod(prompt)


@pytest.fixture
def services() -> Services:
    return Services()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def worker(services: Services, engine: ScriptedEngine) -> Iterator[RolloutWorker]:
    config = Config()
    config.rollout.group_size = 2
    config.rollout.groups_in_engine = 4
    worker = RolloutWorker(config=config, worker_id="w", engine=engine, prompts=Prompts(), services=services)
    worker.start()
    yield worker
    worker.stop()
    services.offers.put([])


def test_leases_nothing_while_the_host_is_short_of_memory(
    services: Services, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.rollout.PRESSURE_S", 0.01)
    in_use = iter([0.95, 0.95, 0.5])
    looks: queue.Queue[float] = queue.Queue()

    def memory() -> float:
        assert services.asked.empty()
        share = next(in_use)
        looks.put(share)
        return share

    worker = RolloutWorker(
        config=Config(), worker_id="w", engine=engine, prompts=Prompts(), services=services, memory=memory
    )
    worker.start()
    receive(worker, engine, 0)
    assert services.asked.get(timeout=WAIT_S)
    assert [looks.get_nowait() for _ in range(3)] == [0.95, 0.95, 0.5]
    assert worker.stats()["short_of_memory"] == 0.0
    worker.stop()
    services.offers.put([])


def receive(worker: RolloutWorker, engine: ScriptedEngine, version: int, arrived: Any = True, **changes: Any) -> Any:
    engine.arrived = arrived
    arguments: dict[str, Any] = {
        "group": None,
        "layout": WeightLayout(weights=[], shares=[]),
        "bucket_bytes": 1,
        "deadline_s": WAIT_S,
    } | changes
    return worker.receive_weights(version=version, **arguments)


def test_leases_nothing_before_its_first_weight_sync(
    worker: RolloutWorker, services: Services, engine: ScriptedEngine
) -> None:
    services.offers.put([0])
    # Ordered after everything that came before it on the engine's thread, so a wrong lease would have shown.
    assert worker.generate([prompt()], Sampling(temperature=1.0), 1, WAIT_S)
    assert services.asked.empty()
    receive(worker, engine, 0)
    assert services.asked.get(timeout=WAIT_S) == (0, 4)


def test_a_leased_group_is_generated_and_delivered_with_its_version(
    worker: RolloutWorker, services: Services, engine: ScriptedEngine
) -> None:
    receive(worker, engine, 3)
    services.offers.put([5])
    (group,) = services.delivered.get(timeout=WAIT_S)
    assert (group.group_id, group.prompt.index, len(group.completions)) == ("5-1", 5, 2)
    assert group.min_policy_version == 3
    assert services.announced == [3]


def test_room_shrinks_by_what_is_under_way(worker: RolloutWorker, services: Services, engine: ScriptedEngine) -> None:
    engine._steps = 10**9  # never finishes
    receive(worker, engine, 0)
    services.offers.put([0, 1, 2])
    assert services.asked.get(timeout=WAIT_S)[1] == 4
    assert services.asked.get(timeout=WAIT_S)[1] == 1


def test_a_group_counts_as_held_until_its_delivery_has_returned(
    worker: RolloutWorker, services: Services, engine: ScriptedEngine
) -> None:
    services.stored.clear()
    receive(worker, engine, 0)
    assert services.held.get(timeout=WAIT_S) == []
    services.offers.put([0, 1])
    assert services.held.get(timeout=WAIT_S) == ["0-1", "1-1"]
    assert services.delivered.get(timeout=WAIT_S)  # a reward worker has it, and has not answered
    services.offers.put([2])
    assert services.held.get(timeout=WAIT_S) == ["0-1", "1-1", "2-1"]
    services.stored.set()
    worker.drain(WAIT_S)
    services.offers.put([])
    assert worker.stats()["undelivered"] == 0


def test_a_failed_receive_leaves_the_old_policy_and_the_next_one_works(
    worker: RolloutWorker, services: Services, engine: ScriptedEngine
) -> None:
    receive(worker, engine, 1)
    with pytest.raises(WeightSyncError, match="peer died"):
        receive(worker, engine, 2, arrived=WeightSyncError("peer died"))
    assert engine.version == 1
    assert receive(worker, engine, 2).version == 2


def test_a_receive_that_never_ends_has_a_deadline(worker: RolloutWorker, engine: ScriptedEngine) -> None:
    with pytest.raises(DeadlineExceeded, match=r"policy 4 .*sync.deadline_s"):
        receive(worker, engine, 4, arrived=False, deadline_s=0.2)


def test_weights_change_while_groups_are_under_way(
    worker: RolloutWorker, services: Services, engine: ScriptedEngine
) -> None:
    engine.min_version = 1
    receive(worker, engine, 0)
    services.offers.put([0])
    assert services.asked.get(timeout=WAIT_S)
    receive(worker, engine, 1)
    (group,) = services.delivered.get(timeout=WAIT_S)
    assert group.max_policy_version == 1


def test_evaluation_answers_in_the_order_of_its_prompts(worker: RolloutWorker) -> None:
    groups = worker.generate([prompt(3), prompt(1)], Sampling(temperature=0.0), 1, WAIT_S)
    assert [g.prompt.index for g in groups] == [3, 1]


def test_a_delivery_that_fails_for_good_fails_the_worker(
    worker: RolloutWorker, services: Services, engine: ScriptedEngine
) -> None:
    services.failure = InfrastructureError("no reward worker")
    receive(worker, engine, 0)
    services.offers.put([0])
    pending: Future[Any] = Future()
    threading.Thread(target=lambda: pending.set_result(_first_failure(worker)), daemon=True).start()
    assert "no reward worker" in pending.result(timeout=WAIT_S)


def _first_failure(worker: RolloutWorker) -> str:
    while True:
        try:
            worker.generate([prompt()], Sampling(temperature=1.0), 1, 0.5)
        except InfrastructureError as e:
            if "has failed" in str(e):
                return str(e)


def test_an_engine_error_reaches_those_who_wait(worker: RolloutWorker, engine: ScriptedEngine) -> None:
    engine.failure = RuntimeError("engine broke")
    with pytest.raises(ProcessDied, match="w has failed: RuntimeError: engine broke"):  # to be asked elsewhere
        worker.generate([prompt()], Sampling(temperature=1.0), 1, WAIT_S)
    with pytest.raises(ProcessDied, match="engine broke"):
        worker.stats()


def test_drain_finishes_what_was_leased(worker: RolloutWorker, services: Services, engine: ScriptedEngine) -> None:
    receive(worker, engine, 0)
    services.offers.put([0, 1])
    assert services.delivered.get(timeout=WAIT_S)
    worker.drain(WAIT_S)
    assert worker.stats()["leased"] == 0


class EndlessTraining(ScriptedEngine):
    """Groups of the ledger never finish; evaluations do."""

    def __init__(self) -> None:
        super().__init__()
        self.training = threading.Event()

    def submit(self, request_id: str, token_ids: Any, sampling: Sampling, n: int) -> None:
        super().submit(request_id, token_ids, sampling, n)
        if not request_id.startswith("eval"):
            self._running[request_id] = (10**9, n)
            self.training.set()


@pytest.mark.parametrize("deterministic", [False, True])
def test_only_in_a_deterministic_run_evaluations_wait_until_the_engine_is_empty(
    services: Services, deterministic: bool
) -> None:
    config = Config()
    config.run.deterministic = deterministic
    engine = EndlessTraining()
    worker = RolloutWorker(config=config, worker_id="w", engine=engine, prompts=Prompts(), services=services)
    worker.start()
    receive(worker, engine, 0)
    services.offers.put([0])
    assert engine.training.wait(WAIT_S)
    waits = pytest.raises(DeadlineExceeded) if deterministic else nullcontext()
    with waits:
        worker.generate([prompt(9)], Sampling(temperature=0.0), 1, 0.2 if deterministic else WAIT_S)
    worker.stop()
    services.offers.put([])
