"""Experts that vLLM's routers chose in the passes that sampled the tokens of a completion.

vLLM hands them out itself (`enable_return_routed_experts`) under its model runner V2. That one needs Triton, which has
no CPU backend in its releases. On a CPU `CapturedExperts` therefore takes the place of both ends of vLLM's connector:
it records what the routers of the older runner choose, and gives the scheduler the rows of each token that it emits.
Everything behind the scheduler is vLLM's own, and a completion's rows come with it on either device.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from r1ray.config.rules import recorded_every
from r1ray.config.schema import Config
from r1ray.errors import EngineRefused
from r1ray.types import RoutedExperts

Rows = npt.NDArray[Any]


class CapturedExperts:
    """Connector of an engine on a CPU, in one process: the scheduler's `aux_output_connector`.

    A row [1, L, K] for each sampled token: the choices at the position that predicts it.
    """

    def __init__(self, runner: Any, vllm_config: Any) -> None:
        """`runner`: vLLM's model runner, whose steps are observed from now on."""
        from vllm.model_executor.layers.fused_moe.routed_experts_capturer import (
            RoutedExpertsCapturer,
            bind_routed_experts_capturer,
        )

        self._runner = runner
        self._capturer = RoutedExpertsCapturer(vllm_config.scheduler_config.max_num_batched_tokens, vllm_config)
        bind_routed_experts_capturer(runner.get_model(), self._capturer)
        self._rows: dict[str, Rows] = {}  # of the last step, by request
        self._execute = runner.execute_model
        runner.execute_model = self._observed_step

    def _observed_step(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        result = self._execute(scheduler_output, *args, **kwargs)
        scheduled = scheduler_output.num_scheduled_tokens
        requests = [name for name in self._runner.input_batch.req_ids if name in scheduled]
        ends = np.cumsum([scheduled[name] for name in requests], dtype=np.int64)
        last = self._capturer.snapshot_routing_data(int(ends[-1]) if requests else 0).numpy()[ends - 1]
        self._rows = {name: last[i : i + 1] for i, name in enumerate(requests)}
        return result

    def take_output(self, request: Any, output: Any) -> Rows | None:
        """The row of the token that the scheduler has just added to `request`."""
        return self._rows.get(request.request_id)

    def build_connector_meta(self, scheduler_output: Any, requests: Any) -> None:
        """Nothing to send to the runner: it is in this process."""

    def request_finished(self, request: Any) -> None:
        """Nothing is kept of a request."""

    def reset(self) -> None:
        """Nothing is kept of a prefix cache."""


def capture_on_cpu(engine: Any) -> None:
    """Have the completions of `engine`, vLLM's LLMEngine on a CPU, come with their experts. Raises EngineRefused."""
    core = engine.engine_core.engine_core  # in this process, see `actors.engine`
    worker = core.model_executor.driver_worker
    try:
        core.scheduler.aux_output_connector = CapturedExperts(worker.worker.model_runner, engine.vllm_config)
    except ValueError as e:
        raise EngineRefused(f"algorithm.routing: vLLM cannot record the experts of this model: {e}") from e


def experts_of(output: Any, tokens: int, config: Config) -> RoutedExperts | None:
    """The experts of one of vLLM's completions; None if the configuration does not ask for them.

    `output.routed_experts` [rows, L, K] may begin with rows of the prompt; the last `tokens` predict the completion.
    """
    every = recorded_every(config)
    if every is None:
        return None
    rows = output.routed_experts
    if rows is None or len(rows) < tokens:
        raise EngineRefused(
            f"algorithm.routing: vLLM returned the experts of {0 if rows is None else len(rows)} positions for "
            f"{tokens} "
            "tokens: set it to ignore"
        )
    return RoutedExperts(ids=np.ascontiguousarray(rows[len(rows) - tokens :][::every]), every=every)
