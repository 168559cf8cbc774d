"""Section `learner`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from r1ray.config.annotations import Doc, Range


@dataclass
class OptimizerConfig:
    """AdamW and its learning-rate schedule."""

    lr: Annotated[float, Range(gt=0), Doc("peak learning rate")] = 1e-6
    betas: Annotated[tuple[float, float], Range(ge=0, lt=1), Doc("decay of the first and second moment")] = (0.9, 0.95)
    eps: Annotated[float, Range(gt=0), Doc("added to the square root of the second moment")] = 1e-8
    weight_decay: Annotated[float, Range(ge=0), Doc("decoupled weight decay")] = 0.0
    gradient_clip: Annotated[float, Range(gt=0), Doc("largest norm of the gradient")] = 1.0
    schedule: Annotated[Literal["constant", "linear", "cosine"], Doc("learning rate after the warm-up")] = "constant"
    warmup_steps: Annotated[int, Range(ge=0), Doc("linear warm-up, in training steps")] = 0
    min_lr_ratio: Annotated[float, Range(ge=0, le=1), Doc("floor of the schedule as a share of lr")] = 0.0


@dataclass
class LearnerConfig:
    """Training processes (DeepSpeed) and the batch of a training step."""

    ranks: Annotated[int, Range(ge=1), Doc("training processes")] = 1
    num_cpus: Annotated[float, Range(ge=0), Doc("Ray CPUs and threads of each rank")] = 1.0
    num_gpus: Annotated[float, Range(ge=0), Doc("Ray GPUs of each rank; 0: train on the CPU")] = 1.0
    zero_stage: Annotated[
        int,
        Range(ge=0, le=3),
        Doc("ZeRO: 0 shards nothing, 1 the optimiser state, 2 also the gradients, 3 also the parameters"),
    ] = 1
    offload_optimizer: Annotated[bool, Doc("keep the optimiser state in host memory")] = False
    offload_parameters: Annotated[bool, Doc("keep the parameters in host memory; ZeRO 3 only")] = False
    groups_per_step: Annotated[int, Range(ge=1), Doc("B, prompts of one training step")] = 32
    minibatches: Annotated[int, Range(ge=1), Doc("optimiser steps of one training step")] = 1
    sequence_parallel: Annotated[
        int, Range(ge=1), Doc("n, ranks that compute one packed row together, a slice of its tokens each")
    ] = 1
    expert_parallel: Annotated[
        int,
        Range(ge=1),
        Doc("n, ranks that divide the experts of a mixture of experts among them (DeepSpeed's AutoEP)"),
    ] = 1
    micro_batch_tokens: Annotated[
        int, Range(ge=1), Doc("packed tokens of one forward pass of a rank; a row of n ranks has n times as many")
    ] = 8192
    shared_prompts: Annotated[
        bool | None, Doc("compute a group's prompt once per micro-batch, not per completion; null: on a CPU only")
    ] = None
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
