"""vLLM for one conversation: one request at a time, its text as it is made. For `r1ray chat`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, cast

from r1ray.data.tokenizer import Tokenizer, unused_ids
from r1ray.models.folder import ModelShape, read_shape
from r1ray.types import Sampling
from r1ray.util.files import read_json
from r1ray.util.machine import Machine
from r1ray.util.vllm_environment import CPU_ENVIRONMENT, GPU_ENVIRONMENT

CACHE_SLACK = 2**26
"""Bytes of key-value cache beyond one longest sequence: vLLM hands it out in blocks."""


class StreamingEngine:
    """A `r1ray.serving.chat.TextEngine` on vLLM, in this process."""

    def __init__(self, model: Path, machine: Machine, *, max_length: int) -> None:
        """Loads the model folder; `max_length` tokens are cut to what the model's positions reach.

        Takes over the environment variables that vLLM reads on import: make it once in a process, before any other vLLM.
        Raises ConfigError where `model` cannot be read.
        """
        shape = read_shape(model)
        self._max_length = min(max_length, shape.context)
        os.environ.update({**(GPU_ENVIRONMENT if machine.gpus else CPU_ENVIRONMENT), "VLLM_LOGGING_LEVEL": "ERROR"})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of vLLM about torch: nothing that a chatter can do
            import torch
            from vllm import EngineArgs
            from vllm.v1.engine.llm_engine import LLMEngine

            if not machine.gpus:
                torch.set_num_threads(machine.cores)  # rollout workers have one core each; here nobody else computes
            self._engine = LLMEngine.from_engine_args(EngineArgs(**self._arguments(model, shape, machine)))
        self._names = count()
        self._allowed = _allowed_ids(self.tokenizer, shape.vocabulary)

    @property
    def tokenizer(self) -> Tokenizer:
        return cast(Tokenizer, self._engine.get_tokenizer())

    @property
    def max_length(self) -> int:
        return self._max_length

    def stream(self, token_ids: Sequence[int], sampling: Sampling, stop: Sequence[str]) -> Generator[str, None, None]:
        """The response in bits; special tokens are kept, a closing one apart. Closing the generator ends the generation."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_new_tokens,
            seed=sampling.seed,
            stop=list(stop),
            allowed_token_ids=self._allowed,
            skip_special_tokens=False,  # the tags may be special tokens
            output_kind=RequestOutputKind.DELTA,
        )
        name = f"turn-{next(self._names)}"
        self._engine.add_request(name, {"prompt_token_ids": list(token_ids)}, params)
        try:
            while self._engine.has_unfinished_requests():
                for output in self._engine.step():
                    yield output.outputs[0].text
        finally:
            self._engine.abort_request([name])  # nothing to do where it is finished

    def _arguments(self, model: Path, shape: ModelShape, machine: Machine) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": str(model),
            "max_model_len": self._max_length,
            "max_num_seqs": 1,
            "dtype": stored_dtype(model, machine),
            "distributed_executor_backend": "uni",
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
        }
        if not machine.gpus:
            sequence = 2 * shape.layers * shape.key_value * 4 * self._max_length  # keys and values, float32
            arguments |= {
                "enforce_eager": True,
                "kv_cache_memory_bytes": sequence + CACHE_SLACK,
            }
        return arguments


def _allowed_ids(tokenizer: Tokenizer, rows: int) -> list[int] | None:
    """The ids that have a token; None if all have, so that vLLM need not mask any."""
    unused = set(unused_ids(tokenizer, rows))
    return [i for i in range(rows) if i not in unused] if unused else None


def stored_dtype(model: Path, machine: Machine) -> str:
    """The type that the weights are stored in, where this machine computes in it. vLLM's own choice halves float32."""
    config = read_json(model / "config.json")
    stored = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return stored if machine.gpus or machine.cpu_bfloat16 else "float32"
