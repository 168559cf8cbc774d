"""DeepSpeed's configuration and its optimizer, from ours."""

from __future__ import annotations

from typing import Any

import torch

from learner.empty import DTYPES
from r1ray.config.schema import LearnerConfig, ModelConfig
from r1ray.preflight.memory import BUCKET_ELEMENTS, LIVE_PARAMETERS


def make_optimizer(groups: list[dict[str, Any]], learner: LearnerConfig) -> Any:
    """AdamW of the configuration for these groups of parameters, on their device or in host memory."""
    o = learner.optimizer
    kwargs = {"lr": o.lr, "betas": tuple(o.betas), "eps": o.eps, "weight_decay": o.weight_decay}
    if learner.offload_optimizer:
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        return DeepSpeedCPUAdam(groups, adamw_mode=True, **kwargs)
    return torch.optim.AdamW(groups, fused=True, **kwargs)


def deepspeed_config(*, model: ModelConfig, learner: LearnerConfig, elements: int) -> dict[str, Any]:
    """DeepSpeed's configuration. The caller accumulates and sizes batches, so DeepSpeed must not scale or count."""
    bucket = max(1, min(BUCKET_ELEMENTS, elements))
    zero: dict[str, Any] = {"stage": learner.zero_stage, "reduce_bucket_size": bucket, "allgather_bucket_size": bucket}
    if learner.zero_stage == 3:
        zero["stage3_max_live_parameters"] = LIVE_PARAMETERS
    if learner.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if learner.offload_parameters:
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": learner.optimizer.gradient_clip if learner.zero_stage else 0.0,
        "zero_optimization": zero,
        "steps_per_print": None,
    }
    if DTYPES[model.dtype] == torch.bfloat16:
        config["bf16"] = {"enabled": True, "check_grad_overflow": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config
