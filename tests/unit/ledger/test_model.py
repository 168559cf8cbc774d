"""The ledger against a model of a few lines, under any order of calls, messages, restarts and rollbacks."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from contextlib import ExitStack, closing

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from r1ray.ledger import Ledger, LedgerReader, PutOutcome, audit
from tests.unit.ledger_model import Model
from tests.unit.ledger_support import Clock, fast_folder, payload, rules

WORKERS = st.sampled_from(["w0", "w1"])
KINDS = st.sampled_from(["good", "good", "good", "equal", "error"])


class LedgerAgainstModel(RuleBasedStateMachine):
    @initialize(
        staleness=st.integers(0, 2),
        attempts=st.integers(1, 2),
        returns=st.integers(1, 3),
        requeue=st.booleans(),
        reserve_after=st.integers(0, 2),
        dynamic=st.booleans(),
    )
    def begin(
        self, staleness: int, attempts: int, returns: int, requeue: bool, reserve_after: int, dynamic: bool
    ) -> None:
        self.open = ExitStack()
        self.path = self.open.enter_context(fast_folder()) / "ledger.sqlite"
        self.clock = Clock()
        self.model = Model(2, staleness, attempts, returns, requeue, reserve_after, dynamic)
        chosen = rules(
            max_staleness=staleness,
            max_attempts=attempts,
            max_requeues=returns,
            stale_policy="requeue" if requeue else "drop",
            reserve_after_stale=reserve_after,
            dynamic_sampling=dynamic,
        )
        self.ledger = Ledger.create(self.path, chosen, run_id="r", clock=self.clock)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            report = audit(self.path, [self.model.trained])
            assert report.ok, report.violations
            self.open.close()

    @rule(worker=WORKERS, lag=st.integers(0, 2), n=st.integers(1, 6))
    def lease(self, worker: str, lag: int, n: int) -> None:
        version = max(0, len(self.model.batches) - lag)
        leases = self.ledger.lease(worker, version, n)
        assert [x.group_id for x in leases] == self.model.lease(worker, version, n, self.clock.now + 60)

    @rule(worker=WORKERS, data=st.data(), n=st.integers(1, 4))
    def lease_again(self, worker: str, data: st.DataObject, n: int) -> None:
        """The worker says what it holds, truly or as it was long ago; the rest of its leases comes again."""
        theirs = [g for g in self.model.groups.values() if g.state == "leased" and g.worker == worker]
        held = data.draw(st.sets(st.sampled_from(sorted(self.model.groups)))) if self.model.groups else set()
        expected = sorted((g for g in theirs if g.group_id not in held), key=lambda g: g.index)[:n]
        for g in expected:
            g.deadline = self.clock.now + 60
        assert [x.group_id for x in self.ledger.redeliver_unacknowledged(worker, held, n)] == [
            g.group_id for g in expected
        ]

    def message(self, group_id: str, kind: str) -> bytes:
        version = self.model.groups[group_id].version
        rewards = (1.0, 1.0) if kind == "equal" else (0.0, 1.0)
        return payload(group_id, version=version, rewards=rewards, error="VerifierError" if kind == "error" else None)

    @precondition(lambda self: self.model.groups)
    @rule(data=st.data(), kinds=st.lists(KINDS, min_size=1, max_size=4), together=st.booleans())
    def put(self, data: st.DataObject, kinds: list[str], together: bool) -> None:
        """Any group ever leased: so messages come in any order, twice, and long after their lease is gone."""
        chosen = [(data.draw(st.sampled_from(sorted(self.model.groups))), kind) for kind in kinds]
        packed = [self.message(group_id, kind) for group_id, kind in chosen]
        outcomes = self.ledger.put_many(packed) if together else [self.ledger.put(p) for p in packed]
        assert outcomes == [self.model.put(group_id, kind) for group_id, kind in chosen]

    @precondition(lambda self: any(g.state == "leased" for g in self.model.groups.values()))
    @rule()
    def finish_all(self) -> None:
        """Without this, random puts rarely fill a batch."""
        for group_id in [g.group_id for g in self.model.groups.values() if g.state == "leased"]:
            assert self.ledger.put(self.message(group_id, "good")) is PutOutcome.ACCEPTED
            self.model.put(group_id, "good")

    @precondition(lambda self: self.model.groups)
    @rule(data=st.data(), infrastructure=st.booleans())
    def fail(self, data: st.DataObject, infrastructure: bool) -> None:
        g = self.model.groups[data.draw(st.sampled_from(sorted(self.model.groups)))]
        changes = g.state == "leased" if infrastructure else self.model.welcome(g)
        assert self.ledger.fail(g.group_id, "Oops", infrastructure) == changes
        if changes:
            self.model.hand_back(g, suspicious=False) if infrastructure else self.model.blame(g)

    @rule(worker=WORKERS, drained=st.booleans())
    def release(self, worker: str, drained: bool) -> None:
        lost = [g for g in self.model.groups.values() if g.state == "leased" and g.worker == worker]
        assert sorted(self.ledger.release_worker(worker, drained=drained)) == sorted(g.group_id for g in lost)
        for g in lost:
            self.model.hand_back(g, suspicious=not drained)

    @rule()
    def another_driver(self) -> None:
        lost = [g for g in self.model.groups.values() if g.state == "leased"]
        assert sorted(self.ledger.release_all()) == sorted(g.group_id for g in lost)
        for g in lost:
            self.model.hand_back(g, suspicious=False)

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def expire(self, seconds: int) -> None:
        self.clock.now += seconds
        lapsed = [g for g in self.model.groups.values() if g.state == "leased" and g.deadline <= self.clock.now]
        assert sorted(self.ledger.expire()) == sorted(g.group_id for g in lapsed)
        for g in lapsed:
            self.model.hand_back(g, suspicious=True)

    @rule()
    def take(self) -> None:
        step = len(self.model.batches)
        manifest, expected = self.ledger.take(step), self.model.take()
        assert (None if manifest is None else [g.group_id for g in manifest.groups]) == expected
        assert manifest is None or all(step - g.min_policy_version <= self.model.staleness for g in manifest.groups)

    @precondition(lambda self: self.model.trained < len(self.model.batches))
    @rule(data=st.data())
    def take_again(self, data: st.DataObject) -> None:
        step = data.draw(st.integers(self.model.trained, len(self.model.batches) - 1))
        manifest = self.ledger.take(step)
        assert manifest is not None
        assert [g.group_id for g in manifest.groups] == self.model.batches[step]
        self.mark(step, "taken")

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        version = data.draw(st.integers(0, len(self.model.batches)))
        self.ledger.commit(version, f"step_{version:06d}")
        self.model.trained = max(self.model.trained, version)
        for step in range(version):
            self.mark(step, "trained")

    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        version = data.draw(st.integers(0, self.model.trained))
        undone = self.ledger.rollback(version)
        assert undone.steps == tuple(range(version, len(self.model.batches)))
        assert undone.trained_groups == 2 * (self.model.trained - version)
        self.model.trained = version
        for step in undone.steps:
            self.mark(step, "scored")

    def mark(self, step: int, state: str) -> None:
        for group_id in self.model.batches[step]:
            self.model.groups[group_id].state = state

    @rule()
    def restart(self) -> None:
        self.ledger.close()
        self.ledger = Ledger.open(self.path, run_id="r", clock=self.clock)

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "ledger"):
            return
        status, groups = self.ledger.status(), list(self.model.groups.values())
        for state in ("leased", "scored", "taken", "trained", "dropped"):
            assert getattr(status, state) == sum(g.state == state for g in groups), state
        current = self.model.current()
        done = [i for i, g in current.items() if g.state == "trained" or g.final]
        frontier = next(i for i in range(len(current) + 1) if i not in done)
        assert (status.cursor, status.trained_frontier, status.ready) == (len(current), frontier, len(self.model.ready))
        assert (status.bound_steps, status.trained_steps) == (len(self.model.batches), self.model.trained)
        assert (status.queued, status.dropped_prompts) == (len(self.model.queued()), sum(g.final for g in groups))


TestLedgerAgainstModel = LedgerAgainstModel.TestCase
TestLedgerAgainstModel.settings = settings(max_examples=40, stateful_step_count=40, deadline=None, derandomize=True)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    staleness=st.integers(0, 3),
    size=st.integers(1, 5),
    workers=st.integers(1, 4),
    sync_lag=st.integers(0, 1),
    reserve_after=st.integers(0, 2),
)
def test_the_staleness_bound_holds_and_no_prompt_starves(
    seed: int, staleness: int, size: int, workers: int, sync_lag: int, reserve_after: int
) -> None:
    """Workers of random speed that get new weights late: every step gets its batch, no group of it is too old, and no
    prompt returns as stale more often than `reserve_after_stale` allows.
    """
    rng, clock = random.Random(seed), Clock()
    target, step = 8, 0
    with fast_folder() as folder:
        ledger = Ledger.create(
            folder / "ledger.sqlite",
            rules(
                groups_per_step=size,
                max_staleness=staleness,
                lease_timeout_s=1e9,
                reserve_after_stale=reserve_after,
            ),
            run_id="r",
            clock=clock,
        )
        serving = [0] * workers
        finishing: list[tuple[float, str, int]] = []  # when, group, policy that it was begun under
        for _ in range(400):
            worker = rng.randrange(workers)
            serving[worker] = max(serving[worker], step - rng.randint(0, sync_lag))
            for lease in ledger.lease(f"w{worker}", serving[worker], rng.randint(1, 2 * size)):
                heapq.heappush(finishing, (clock.now + rng.expovariate(1.0), lease.group_id, serving[worker]))
            if finishing:
                clock.now, group_id, version = heapq.heappop(finishing)
                ledger.put(payload(group_id, version=version))
            while (manifest := ledger.take(step)) is not None:
                assert all(step - g.min_policy_version <= staleness for g in manifest.groups)
                step += 1
            if step >= target:
                break
        ledger.close()
        with closing(LedgerReader.open(folder / "ledger.sqlite")) as reader:
            stale = Counter(g.index for g in reader.groups(state="dropped") if g.reason == "stale")
        assert max(stale.values(), default=0) <= reserve_after
        assert step >= target
        assert audit(folder, [0]).ok


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), staleness=st.integers(0, 3), size=st.integers(1, 5))
def test_admission_alone_keeps_the_bound_where_groups_finish_in_order(seed: int, staleness: int, size: int) -> None:
    """The formula of `LedgerSettings.capacity` is exact: without stragglers `take` finds nothing to drop."""
    rng = random.Random(seed)
    with fast_folder() as folder:
        ledger = Ledger.create(
            folder / "ledger.sqlite",
            rules(groups_per_step=size, max_staleness=staleness),
            run_id="r",
            clock=Clock(),
        )
        running: list[tuple[str, int]] = []
        step, oldest = 0, 0
        while step < 6:
            running += [(x.group_id, step) for x in ledger.lease("w", step, rng.randint(1, 3 * size))]
            for _ in range(rng.randint(1, 2 * size)):
                if running:
                    group_id, version = running.pop(0)
                    ledger.put(payload(group_id, version=version))
            if (manifest := ledger.take(step)) is not None:
                oldest = max(oldest, *(step - g.min_policy_version for g in manifest.groups))
                step += 1
        assert ledger.status().dropped == 0
        assert oldest <= staleness
        ledger.close()
