"""Arguments of the vLLM engine of a rollout worker, from the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from r1ray.config.rules import recorded_every
from r1ray.config.schema import Config
from r1ray.config.sections.rollout import EngineConfig
from r1ray.models.folder import is_block_fp8

PREFILL_TOKENS = 4096
"""Tokens of one engine step on a CPU; vLLM's own default there."""

SHORT, SHORT_BLOCK = 256, 32
"""Sequences of at most SHORT tokens have a KV cache in blocks of SHORT_BLOCK on a CPU, the smallest that vLLM's
attention takes there. A group shares whole blocks of its prompt, and vLLM's default is 128; for long sequences that is
faster (docs/performance-log.md)."""


def engine_arguments(config: Config, model_path: str, *, synced: bool = False) -> dict[str, Any]:
    """Keyword arguments of vLLM's EngineArgs for this run.

    `synced`: the learner sends all weights before anything is generated. It sends them unquantized, so a model that is
    stored in fp8 is then built without quantization, and without reading its weights.
    """
    engine = config.rollout.engine
    gpu = config.rollout.num_gpus > 0
    arguments: dict[str, Any] = {
        "model": model_path,
        "dtype": config.model.dtype if engine.dtype == "auto" else engine.dtype,
        "max_model_len": config.model.max_length,
        "max_num_seqs": engine.max_num_seqs,
        "enforce_eager": engine.enforce_eager,
        # Cached keys and values of earlier batches were computed beside other sequences: their last bits differ.
        "enable_prefix_caching": engine.prefix_caching and not config.run.deterministic,
        "tensor_parallel_size": engine.tensor_parallel_size,
        "distributed_executor_backend": executor(engine),
        "disable_log_stats": True,
        "seed": config.run.seed,
        "trust_remote_code": config.model.trust_remote_code,
        "generation_config": "vllm",  # a model folder must not change our sampling parameters
        # The learner divides its logits by the temperature, so both sides have the same distribution.
        "logprobs_mode": "processed_logprobs",
        "weight_transfer_config": {"backend": "r1ray"},
        "worker_extension_cls": "actors.receiver.ReceiverExtension",
    }
    if synced and is_block_fp8(Path(model_path)):
        arguments |= {"load_format": "dummy", "hf_overrides": {"quantization_config": None}}
    if engine.kv_cache_gib is not None:
        arguments["kv_cache_memory_bytes"] = int(engine.kv_cache_gib * 2**30)
    if gpu:
        arguments["gpu_memory_utilization"] = engine.gpu_memory_utilization
        if recorded_every(config) is not None:
            arguments["enable_return_routed_experts"] = True
    else:
        # If a prompt is cut into chunks, vLLM 0.32 rewinds the seeded generator of its request, which fails on a CPU.
        arguments["enable_chunked_prefill"] = False
        arguments["max_num_batched_tokens"] = max(PREFILL_TOKENS, config.model.max_length)
        if config.model.max_length <= SHORT:
            arguments["block_size"] = SHORT_BLOCK
    return arguments | engine.extra


def executor(engine: EngineConfig) -> str:
    """How vLLM runs the processes of one engine: in this one, as its children, or as Ray actors on several hosts."""
    if engine.tensor_parallel_size == 1:
        return "uni"
    return "mp" if engine.hosts == 1 else "ray"
