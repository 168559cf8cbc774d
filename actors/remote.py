"""The thin Ray side of the actors: what each one is built from, and how it reaches the others.

Classes here are plain; the composition root turns them into Ray actors with the resources of the configuration.
"""

from __future__ import annotations

import functools
import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from actors.engine import Applied, TransferSpecs
from actors.reward import RewardWorker
from actors.reward_calls import COMPLETIONS_A_CALL, scoring_timeout_s
from r1ray.codec import pack_rollout
from r1ray.config.checks import Use
from r1ray.config.schema import Config
from r1ray.errors import DeadlineExceeded, InfrastructureError, ProcessDied
from r1ray.ledger.records import Lease
from r1ray.transport.channel import Rendezvous
from r1ray.types import Sampling

LEASE_WAIT_S = 5.0
RETRY_S = 0.5
LONGEST_RETRY_S = 2.0
"""Between two tries. Doubled up to this where an actor is there and refuses, for want of a judge or of room on the disk.

Well below `actors.queue.TROUBLE_S`, or a run that pauses would seem to go on in between.
"""
QUEUE = "queue"
"""Name of the queue actor."""
PULSE = "pulse"
"""Concurrency group of what must not wait for an actor's work: health questions, and of rollout workers weights and goodbyes."""


def reward_names(config: Config) -> list[str]:
    """Names of the reward workers."""
    return [f"reward-{i}" for i in range(config.reward_worker.workers)]


def place() -> dict[str, Any]:
    """Where this process is: `pid`, and `node` by Ray's id."""
    return {"pid": os.getpid(), "node": ray.get_runtime_context().get_node_id()}


class QueueAndRewards:
    """`actors.rollout.Services` over Ray."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._rewards = [ray.get_actor(name) for name in reward_names(config)]
        self._next = itertools.count()
        self._asker = RetryingClient(config)

    @functools.cached_property
    def _queue(self) -> Any:
        """Asked for when it is first needed: a sampling job has none."""
        return ray.get_actor(QUEUE)

    def lease(self, worker_id: str, version: int, groups: int, held: list[str]) -> list[Lease]:
        leases: list[Lease] = self._asker.ask(
            lambda: self._queue.lease.remote(worker_id, version, groups, held, LEASE_WAIT_S),
            "the ledger to lease prompts",
            patience_s=LEASE_WAIT_S,
        )
        return leases

    def serving(self, worker_id: str, version: int) -> None:
        self._queue.serving.remote(worker_id, version)

    def deliver(self, groups: list[bytes]) -> None:
        """To one reward worker after the other; storing a group twice does no harm."""
        completions = len(groups) * self._config.rollout.group_size
        self._ask_reward(completions, "score_and_put", groups, self._config.run.deterministic)

    def score(self, groups: list[bytes], n: int) -> list[bytes]:
        """The groups, of `n` completions each, scored, in their order."""
        size = max(1, COMPLETIONS_A_CALL // n)
        scored: list[bytes] = []
        for start in range(0, len(groups), size):
            part = groups[start : start + size]
            scored += self._ask_reward(len(part) * n, "score", part)
        return scored

    def fail(self, group_id: str, reason: str) -> None:
        self._asker.ask(lambda: self._queue.fail.remote(group_id, reason, False), "the ledger to note a failed prompt")

    def _ask_reward(self, completions: int, method: str, *args: Any) -> Any:
        def call() -> Any:
            worker = self._rewards[next(self._next) % len(self._rewards)]
            return getattr(worker, method).remote(*args)

        what = f"a reward worker to judge {completions} completions"
        return self._asker.ask(call, what, patience_s=scoring_timeout_s(self._config, completions))


class RetryingClient:
    """Calls of actors that Ray restarts, repeated until one is answered: each of these calls may be made twice."""

    def __init__(self, config: Config) -> None:
        self._rpc_s = config.deadlines.rpc_s
        self._outage_s = config.recovery.outage_s

    def ask(self, call: Callable[[], Any], what: str, *, patience_s: float = 0.0) -> Any:
        """What `call()` answers, which has `patience_s` beside the deadline of a call.

        Raises InfrastructureError once it has failed for `recovery.outage_s`, and what the actor itself refuses.
        """
        until: float | None = None
        pause_s = RETRY_S
        while True:
            try:
                return self._answer(call, patience_s + self._rpc_s, what)
            except InfrastructureError as e:
                until = until or time.monotonic() + self._outage_s
                if time.monotonic() >= until:
                    raise InfrastructureError(f"{e} (for recovery.outage_s={self._outage_s:g})") from e
                time.sleep(min(pause_s, max(0.0, until - time.monotonic())))
                pause_s = RETRY_S if isinstance(e, ProcessDied) else min(2 * pause_s, LONGEST_RETRY_S)

    def _answer(self, call: Callable[[], Any], timeout_s: float, what: str) -> Any:
        try:
            return ray.get(call(), timeout=timeout_s)
        except GetTimeoutError:
            raise DeadlineExceeded(f"waited {timeout_s:g} s (deadlines.rpc_s) for {what}") from None
        except (RayActorError, OutOfMemoryError) as e:  # the latter is how Ray says whom it killed for want of memory
            raise ProcessDied(f"gone while waited for: {what}: {e}") from e
        except RayTaskError as e:
            if isinstance(e.cause, InfrastructureError):
                raise InfrastructureError(f"{what}: {e.cause}") from e  # without Ray's traceback in its text
            raise
        except RayError as e:
            raise InfrastructureError(f"{what}: {e}") from e


class RolloutActor:
    """A RolloutWorker on vLLM. Threaded: weights, evaluations and health questions arrive while it generates."""

    def __init__(self, config: Config, worker_id: str, model_path: str, vocab_hash: str, use: Use = "train") -> None:
        self._config = config
        self._use = use
        self._id = worker_id
        self._model_path = model_path
        self._vocab_hash = vocab_hash

    def start(self) -> dict[str, Any]:
        """Load the model and begin to lease; says how many problems each source has that it can be asked for,
        and what training rows were left out.

        A worker of a sampling job serves the weights that it loaded, and leases nothing: it waits to be asked.

        Not done in `__init__`: Ray keeps only the text of an error raised there, and the fleet must know its kind.
        """
        from actors.engine import VllmEngine
        from actors.rollout import RolloutWorker
        from actors.shm_cleanup import remove_leftovers
        from r1ray.data.problems import evaluation_prompts, sampling_prompts
        from r1ray.data.source import PromptSource
        from r1ray.data.tokenizer import load_tokenizer

        if removed := remove_leftovers():
            print(f"removed shared memory of processes that are gone: {', '.join(removed)}", flush=True)
        config, seed = self._config, self._config.run.seed
        tokenizer = load_tokenizer(self._model_path, self._vocab_hash)
        prompts = (
            PromptSource(config.data.train, config.data, tokenizer, seed, config.learner.groups_per_step)
            if self._use == "train"
            else None
        )
        sources, read = (config.data.evaluation, evaluation_prompts)
        if self._use == "sample":
            sources, read = (config.data.train, sampling_prompts)
        self._problems = {s.name: read(s, config.data, tokenizer, seed) for s in sources}
        self._services = QueueAndRewards(config)
        self._address = ray.util.get_node_ip_address()
        engine = VllmEngine(config, self._model_path)
        if self._use != "train":
            engine.set_version(0)  # there is no other
        self._worker = RolloutWorker(
            config=config, worker_id=self._id, engine=engine, prompts=prompts, services=self._services
        )
        self._worker.start()
        dropped = {name: problems.dropped for name, problems in self._problems.items()}
        sizes = {name: len(problems) for name, problems in self._problems.items()}
        left_out = {} if prompts is None else {name: counts for name, counts in prompts.dropped.items() if counts}
        return {"place": place(), "evaluation": sizes, "dropped": dropped, "left_out": left_out}

    # These three in threads of their own: evaluations may take all others for minutes.
    @ray.method(concurrency_group=PULSE)  # type: ignore[untyped-decorator]
    def receive_weights(
        self,
        *,
        version: int,
        group: tuple[Rendezvous, int] | None,
        specs: TransferSpecs,
        bucket_bytes: int,
        deadline_s: float,
    ) -> Applied:
        return self._worker.receive_weights(
            version=version,
            group=None if group is None else (*group, self._address),
            specs=specs,
            bucket_bytes=bucket_bytes,
            deadline_s=deadline_s,
        )

    def evaluate(
        self, source: str, start: int, stop: int, sampling: Sampling, n: int, deadline_s: float
    ) -> list[bytes]:
        """Sample and score problems [start, stop) of a source, `n` times each; packed scored groups in their order."""
        prompts = self._problems[source][start:stop]
        groups = self._worker.generate(prompts, sampling, n, deadline_s)
        return self._services.score([pack_rollout(g) for g in groups], n)

    @ray.method(concurrency_group=PULSE)  # type: ignore[untyped-decorator]
    def stats(self) -> dict[str, float]:
        return self._worker.stats()

    @ray.method(concurrency_group=PULSE)  # type: ignore[untyped-decorator]
    def drain(self, deadline_s: float) -> None:
        self._worker.drain(deadline_s)


class RewardActor(RewardWorker):
    """A RewardWorker that stores into the queue actor."""

    def __init__(self, config: Config) -> None:
        asker = RetryingClient(config)

        @functools.cache
        def queue() -> Any:
            return ray.get_actor(QUEUE)  # when it is first needed: a sampling job has none

        def put(payloads: list[bytes], atomic: bool) -> list[str]:
            outcomes: list[str] = asker.ask(lambda: queue().put.remote(payloads, atomic), "the ledger to store groups")
            return outcomes

        super().__init__(config, put)

    # In a thread of its own, and retried while Ray restarts the actor: a busy one is not a dead one.
    @ray.method(concurrency_group=PULSE, max_task_retries=-1)  # type: ignore[untyped-decorator]
    def identity(self) -> dict[str, Any]:
        return place()
