"""The Ray side of the actors: how each is constructed and how it reaches the others.

Classes here are plain; the composition root turns them into Ray actors with the resources of the configuration.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar, cast

import ray

from actors.handle import RetryingClient, queue_handle, reward_handles
from actors.reward import RewardWorker
from actors.reward_calls import COMPLETIONS_A_CALL, scoring_timeout_s
from actors.spot_notice import SpotNotice, SpotWatch
from r1ray.codec import pack_rollout
from r1ray.config.schema import Config
from r1ray.config.uses import Use
from r1ray.control.handles import Handle, Identity, Place, QueueApi, RewardApi, WorkerInfo
from r1ray.errors import note_node
from r1ray.ledger.records import Lease
from r1ray.telemetry.logs import at
from r1ray.telemetry.recorder import SILENT, Recorder
from r1ray.transport.channel import Rendezvous
from r1ray.transport.transfer import Applied, WeightLayout
from r1ray.types import Sampling
from r1ray.util.machine import resident_bytes

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")

LEASE_WAIT_S = 5.0
PULSE = "pulse"
"""Concurrency group of calls that must not wait for an actor's work: health checks, weight syncs, drains."""


def in_own_threads(**options: Any) -> Callable[[F], F]:
    """Decorate a method to run in the concurrency group PULSE; `options` are those of the untyped `ray.method`."""
    return cast(Callable[[F], F], ray.method(concurrency_group=PULSE, **options))


def place() -> Place:
    """Where this process runs."""
    return {"pid": os.getpid(), "node": ray.get_runtime_context().get_node_id()}


class QueueAndRewards:
    """`actors.rollout.Services` over Ray."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._rewards = reward_handles(config)
        self._next = itertools.count()
        self._client = RetryingClient(config)

    @functools.cached_property
    def _queue(self) -> Handle[QueueApi]:
        """Looked up at first use: a sampling job has no queue."""
        return queue_handle()

    def lease(self, worker_id: str, version: int, groups: int, held: list[str]) -> list[Lease]:
        """Prompts to answer, see `Services.lease`."""
        return self._client.call(
            lambda: self._queue.start(QueueApi.lease, worker_id, version, groups, held, LEASE_WAIT_S),
            "the ledger's lease of prompts",
            timeout_s=LEASE_WAIT_S,
        )

    def serving(self, worker_id: str, version: int) -> None:
        """Report the policy that the worker serves, without waiting."""
        self._queue.start(QueueApi.serving, worker_id, version)

    def deliver(self, groups: list[bytes]) -> None:
        """Send the groups to the reward workers in turn; storing a group twice does no harm."""
        completions = len(groups) * self._config.rollout.group_size
        atomic = self._config.run.deterministic
        self._score(completions, lambda worker: worker.start(RewardApi.score_and_put, groups, atomic))

    def score(self, groups: list[bytes], n: int) -> list[bytes]:
        """The groups, of `n` completions each, scored, in their order."""
        size = max(1, COMPLETIONS_A_CALL // n)
        scored: list[bytes] = []
        for start in range(0, len(groups), size):
            scored += self._score_part(groups[start : start + size], n)
        return scored

    def _score_part(self, groups: list[bytes], n: int) -> list[bytes]:
        return self._score(len(groups) * n, lambda worker: worker.start(RewardApi.score, groups))

    def fail(self, group_id: str, reason: str) -> None:
        """End the lease of a prompt that cannot be answered."""
        self._client.call(
            lambda: self._queue.start(QueueApi.fail, group_id, reason, False), "the ledger's record of a failed prompt"
        )

    def _score(self, completions: int, start: Callable[[Handle[RewardApi]], Future[R]]) -> R:
        def call() -> Future[R]:
            return start(self._rewards[next(self._next) % len(self._rewards)])

        what = f"a reward worker that scores {completions} completions"
        return self._client.call(call, what, timeout_s=scoring_timeout_s(self._config, completions))


class RolloutActor:
    """A RolloutWorker on vLLM. Threaded: weights, evaluations and health checks arrive while it generates."""

    def __init__(self, config: Config, worker_id: str, model_path: str, vocab_hash: str, use: Use = "train") -> None:
        self._config = config
        self._use = use
        self._id = worker_id
        self._model_path = model_path
        self._vocab_hash = vocab_hash
        self._watch: SpotWatch | None = None

    def start(self) -> WorkerInfo:
        """Load the model and begin to lease; returns the problems of each source and the training rows left out.

        A worker of a sampling job serves the weights that it loaded and leases nothing: the job sends it work.

        Not done in `__init__`: Ray keeps only the text of an error raised there, and the fleet needs its class. Errors
        have the address of the node, see `note_node`.
        """
        self._address = ray.util.get_node_ip_address()
        try:
            return self._start()
        except Exception as e:
            note_node(e, self._address)
            raise

    def _start(self) -> WorkerInfo:
        from actors.engine import VllmEngine
        from actors.rollout import RolloutWorker
        from actors.shm_cleanup import remove_leftovers
        from r1ray.data.source import open_prompts
        from r1ray.data.tokenizer import load_tokenizer

        if removed := remove_leftovers():
            print(f"removed shared memory of processes that are gone: {', '.join(removed)}", flush=True)
        config = self._config
        tokenizer = load_tokenizer(self._model_path, self._vocab_hash)
        prompts = open_prompts(config, tokenizer, self._use)
        self._problems = prompts.problems
        self._services = QueueAndRewards(config)
        engine = VllmEngine(config, self._model_path, synced=self._use == "train")
        if self._use != "train":
            engine.set_version(0)  # the only policy
        self._worker = RolloutWorker(
            config=config, worker_id=self._id, engine=engine, prompts=prompts.training, services=self._services
        )
        self._worker.start()
        if config.rollout.spot_notice == "aws":
            self._watch = SpotWatch(SpotNotice(), self._worker.stop_leasing)
            self._watch.start()
        dropped = {name: problems.dropped for name, problems in self._problems.items()}
        sizes = {name: len(problems) for name, problems in self._problems.items()}
        training = prompts.training
        left_out = {} if training is None else {name: counts for name, counts in training.dropped.items() if counts}
        return {"place": place(), "evaluation": sizes, "dropped": dropped, "left_out": left_out}

    # The methods in own threads do not wait for evaluations, which may occupy all others for minutes.
    @in_own_threads()
    def receive_weights(
        self,
        *,
        version: int,
        group: tuple[Rendezvous, int] | None,
        layout: WeightLayout,
        bucket_bytes: int,
        deadline_s: float,
    ) -> Applied:
        """See `RolloutWorker.receive_weights`."""
        applied = self._worker.receive_weights(
            version=version,
            group=None if group is None else (*group, self._address),
            layout=layout,
            bucket_bytes=bucket_bytes,
            deadline_s=deadline_s,
        )
        at(version=version)
        return applied

    def evaluate(
        self, source: str, start: int, stop: int, sampling: Sampling, n: int, deadline_s: float
    ) -> list[bytes]:
        """Sample problems [start, stop) of a source `n` times each and score them; packed groups in order."""
        prompts = self._problems[source][start:stop]
        groups = self._worker.generate(prompts, sampling, n, deadline_s)
        return self._services.score([pack_rollout(g) for g in groups], n)

    @in_own_threads()
    def stats(self) -> dict[str, float]:
        """See `RolloutWorker.stats`; `host_ends_s`: seconds until its host is taken away, once that is known."""
        return {**self._worker.stats(), **(self._watch.stats() if self._watch else {})}

    @in_own_threads()
    def drain(self, deadline_s: float) -> None:
        """See `RolloutWorker.drain`."""
        self._worker.drain(deadline_s)


class RewardActor(RewardWorker):
    """A RewardWorker that stores into the queue actor."""

    def __init__(self, config: Config, recorder: Recorder = SILENT) -> None:
        client = RetryingClient(config)
        queue = functools.cache(queue_handle)  # looked up at first use: a sampling job has no queue

        def put(payloads: list[bytes], atomic: bool) -> list[str]:
            return client.call(
                lambda: queue().start(QueueApi.put, payloads, atomic), "the ledger's put of scored groups"
            )

        super().__init__(config, put, recorder)

    # In its own thread, and retried while Ray restarts the actor: a busy actor must not count as dead.
    @in_own_threads(max_task_retries=-1)
    def identity(self) -> Identity:
        """Answer a health check."""
        here = place()
        return {"pid": here["pid"], "node": here["node"], "rss_bytes": resident_bytes()}
