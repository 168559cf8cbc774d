"""vLLM engine for `r1ray chat`: one request at a time, with streamed text."""

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
"""Bytes of key-value cache beyond the longest sequence, because vLLM allocates it in blocks."""


class StreamingEngine:
    """A `r1ray.serving.chat.TextEngine` that runs vLLM in this process."""

    def __init__(self, model: Path, machine: Machine, *, max_length: int) -> None:
        """Load the model folder; `max_length` tokens are reduced to the longest sequence that the model allows.

        Sets environment variables that vLLM reads on import, so create it once per process and before any other use of
        vLLM. Raises ConfigError if `model` cannot be read.
        """
        shape = read_shape(model)
        self._max_length = min(max_length, shape.context)
        os.environ.update({**(GPU_ENVIRONMENT if machine.gpus else CPU_ENVIRONMENT), "VLLM_LOGGING_LEVEL": "ERROR"})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # vLLM's, about torch; a user cannot act on them
            import torch
            from vllm import EngineArgs
            from vllm.v1.engine.llm_engine import LLMEngine

            if not machine.gpus:
                torch.set_num_threads(machine.cores)  # a rollout worker has one core; a chat has the machine to itself
            self._engine = LLMEngine.from_engine_args(EngineArgs(**self._arguments(model, shape, machine)))
        self._names = count()
        self._allowed = _allowed_ids(self.tokenizer, shape.vocabulary)

    @property
    def tokenizer(self) -> Tokenizer:
        """Tokenizer of the model."""
        return cast(Tokenizer, self._engine.get_tokenizer())

    @property
    def max_length(self) -> int:
        """Longest sequence, prompt and response together, in tokens."""
        return self._max_length

    def stream(self, token_ids: Sequence[int], sampling: Sampling, stop: Sequence[str]) -> Generator[str, None, None]:
        """Yield the response in pieces, with special tokens except a closing one.

        Closing the generator ends the generation.
        """
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
            self._engine.abort_request([name])  # does nothing if it is finished

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
    """The ids that have a token; None if all have one and vLLM need not mask any."""
    unused = set(unused_ids(tokenizer, rows))
    return [i for i in range(rows) if i not in unused] if unused else None


def stored_dtype(model: Path, machine: Machine) -> str:
    """The dtype of the stored weights, or float32 if the machine cannot compute in it. vLLM's default halves
    float32.
    """
    config = read_json(model / "config.json")
    stored = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return stored if machine.gpus or machine.cpu_bfloat16 else "float32"
