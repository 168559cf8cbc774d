"""New weights between the batches of vLLM's asynchronous scheduling, which it uses on CUDA: its own scheduler and
output processor with a queue of two batches, and an executor that samples the policy and the position of every token.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import ray

from actors.engine import VllmEngine
from r1ray.types import Completion, Sampling
from tests.integration.engine_actor import engine_actor
from tests.integration.engine_host import config_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
LENGTH = 12
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=LENGTH, seed=1)
POLICY = 100
"""A sampled id is 1 + POLICY x the policy that sampled it + the position in its completion."""


def executor_class() -> type:
    """An executor without a model; defined in a function, because importing vLLM takes 17 s."""
    import torch
    from vllm.v1.executor.abstract import Executor
    from vllm.v1.kv_cache_interface import FullAttentionSpec
    from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, LogprobsLists, ModelRunnerOutput

    from actors.staging import Received

    class Sampler(Executor):
        policy = 0
        supported_tasks = ("generate",)

        def _init_executor(self) -> None:
            self.prompts: dict[str, int] = {}

        @classmethod
        def supports_async_scheduling(cls) -> bool:
            return True

        def collective_rpc(self, method: Any, *_: Any, args: Any = (), **options: Any) -> list[Any]:
            if method == "finish_weight_update":
                self.policy += 1
            return [Received(digest="") if method == "weights_received" else None]

        def get_kv_cache_specs(self) -> list[dict[str, Any]]:
            size = self.vllm_config.cache_config.block_size
            return [{"layer": FullAttentionSpec(block_size=size, num_kv_heads=2, head_size=32, dtype=torch.float32)}]

        def get_supported_kv_cache_layouts(self) -> list[list[str]]:
            return [["LBNHC"]]

        def determine_available_memory(self) -> list[int]:
            return [2**27]

        def compile_or_warm_up_model(self) -> None: ...

        def check_health(self) -> None: ...

        def shutdown(self) -> None: ...

        def execute_model(self, batch: Any, non_block: bool = False) -> Future[Any]:
            self.sampled = self.sample(batch) if batch.num_scheduled_tokens else EMPTY_MODEL_RUNNER_OUTPUT
            return done(None if batch.num_scheduled_tokens else self.sampled)

        def sample_tokens(self, grammar: Any, non_block: bool = False) -> Future[Any]:
            return done(self.sampled)

        def sample(self, batch: Any) -> Any:
            """The output of a batch, under the policy of the moment in which it is started."""
            computed = {new.req_id: new.num_computed_tokens for new in batch.scheduled_new_reqs}
            self.prompts |= {new.req_id: len(new.prompt_token_ids) for new in batch.scheduled_new_reqs}
            cached = batch.scheduled_cached_reqs
            computed |= dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
            ids = list(batch.num_scheduled_tokens)
            positions = [computed[i] + batch.num_scheduled_tokens[i] - self.prompts[i] for i in ids]
            tokens = [[1 + POLICY * self.policy + position] for position in positions]
            logprobs = LogprobsLists(
                np.array(tokens), np.full((len(ids), 1), -1.0, np.float32), np.ones(len(ids), np.int64)
            )
            return ModelRunnerOutput(ids, {id_: n for n, id_ in enumerate(ids)}, tokens, logprobs)

    def done(result: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(result)
        return future

    return Sampler


class AsyncEngine:
    """A VllmEngine with vLLM's asynchronous scheduler, in a process of its own."""

    def __init__(self, path: str) -> None:
        from vllm.platforms import current_platform

        platform = type(current_platform)
        check = platform.check_and_update_config

        def checked(cls: Any, config: Any) -> None:
            check(config)
            config.scheduler_config.async_scheduling = True  # which the platform of CPUs turns off

        platform.check_and_update_config = classmethod(checked)
        config = config_for(Path(path))
        config.sync.digest = "none"
        config.rollout.engine.extra = {"distributed_executor_backend": executor_class()}
        self._engine = VllmEngine(config, path)

    def generate(
        self, apply_after: int, keeps_cache: bool, finish_batches: bool = True
    ) -> tuple[int, list[Completion]]:
        """Generate, with new weights after so many engine steps: (batches under way then, all completions)."""
        engine = self._engine
        engine._core.model_executor.policy = 0
        engine._keeps_cache = keeps_cache
        engine.set_version(0)
        for i, prompt in enumerate(PROMPTS):
            engine.submit(str(i), prompt, SAMPLING, 2)
        finished: dict[str, Any] = {}
        for _ in range(apply_after):
            finished.update(engine.step())
        assert engine._core.batch_queue_size == 2
        under_way = len(engine._core.batch_queue)
        with nullcontext() if finish_batches else patch.object(VllmEngine, "_finish_batches"):
            assert engine.try_apply(1) is not None
        while engine.unfinished:
            finished.update(engine.step())
        return under_way, [completion for i in sorted(finished) for completion in finished[i]]


@pytest.fixture(scope="module")
def engine(ray_cluster: None, model: Path) -> Iterator[Any]:
    made = engine_actor(AsyncEngine)
    engine = made.remote(str(model))
    yield engine
    ray.kill(engine)


def mislabelled(completions: list[Completion]) -> int:
    """Tokens whose span names another policy than the one that sampled them."""
    count = 0
    for completion in completions:
        assert [(token - 1) % POLICY for token in completion.token_ids.tolist()] == list(range(LENGTH))
        assert [span.start for span in completion.version_spans] == [0, *(s.end for s in completion.version_spans[:-1])]
        assert completion.version_spans[-1].end == LENGTH
        for span in completion.version_spans:
            sampled = completion.token_ids[span.start : span.end]
            count += int(np.count_nonzero((sampled - 1) // POLICY != span.version))
    return count


@pytest.mark.parametrize("keeps_cache", [True, False])
def test_every_token_has_the_version_of_the_weights_that_sampled_it_and_none_is_lost_or_doubled(
    engine: Any, keeps_cache: bool
) -> None:
    moments = range(LENGTH + 4)  # the last ones are after the end of all completions
    for under_way, completions in ray.get([engine.generate.remote(n, keeps_cache) for n in moments], timeout=200):
        assert len(completions) == 2 * len(PROMPTS)
        assert mislabelled(completions) == 0, under_way


def test_batches_are_under_way_when_weights_change_and_would_get_the_wrong_version(engine: Any) -> None:
    under_way, completions = ray.get(engine.generate.remote(5, True, False), timeout=200)
    assert under_way > 0
    assert mislabelled(completions) == under_way * 2 * len(PROMPTS)
