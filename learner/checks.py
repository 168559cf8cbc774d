"""Which combinations of the algorithm's and the learner's settings contradict each other. Imports no torch.

Each rule says what it refuses, why, and what to set instead; both functions raise ConfigError with all that is wrong at once.
"""

from __future__ import annotations

from learner.advantages import ADVANTAGES
from learner.importance import CORRECTIONS
from learner.losses import LOSSES
from learner.schedules import SCHEDULES
from r1ray.config.schema import Config
from r1ray.errors import ConfigError
from r1ray.watch import keeps_reference

Rule = tuple[bool, str]
"""(broken, what to say)"""


def check_algorithm(config: Config) -> None:
    """Raise ConfigError where `algorithm` names something unknown or contradicts itself or `rollout`."""
    a = config.algorithm
    _refuse(
        [
            _unknown("algorithm.loss", a.loss, LOSSES),
            _unknown("algorithm.advantage", a.advantage, ADVANTAGES),
            _unknown("algorithm.is_correction", a.is_correction, CORRECTIONS),
            _unknown("algorithm.importance", a.importance, ("behavior", "decoupled")),
            _unknown("algorithm.loss_aggregation", a.loss_aggregation, ("token", "sequence", "constant")),
            *_loss_rules(config),
            *_importance_rules(config),
            *_length_rules(config),
        ]
    )


def _loss_rules(config: Config) -> list[Rule]:
    a, group_size = config.algorithm, config.rollout.group_size
    dr = a.loss == "dr_grpo"
    return [
        (
            dr and a.advantage != "mean_only",
            f"dr_grpo does not divide advantages by their std: set algorithm.advantage=mean_only, not {a.advantage}",
        ),
        (
            dr and a.loss_aggregation != "constant",
            f"dr_grpo divides by a constant: set algorithm.loss_aggregation=constant, not {a.loss_aggregation}",
        ),
        (
            a.loss == "dapo" and a.loss_aggregation != "token",
            f"dapo is a mean over tokens: set algorithm.loss_aggregation=token, not {a.loss_aggregation}",
        ),
        (
            a.loss == "dapo" and a.clip_high <= a.clip_low,
            f"dapo clips higher than lower: set algorithm.clip_high above clip_low={a.clip_low} (the paper has 0.2, 0.28)",
        ),
        (
            a.loss == "gspo" and a.loss_aggregation != "sequence",
            f"gspo's ratio is one per sequence: set algorithm.loss_aggregation=sequence, not {a.loss_aggregation}",
        ),
        (
            a.advantage != "reinforce_pp" and group_size < 2,
            f"algorithm.advantage={a.advantage} compares completions of one prompt: rollout.group_size={group_size} must be >= 2",
        ),
        (a.clip_low < 0 or a.clip_high < 0, "algorithm.clip_low and clip_high must not be negative"),
        (
            a.kl_coefficient < 0 or a.entropy_coefficient < 0,
            "algorithm.kl_coefficient and entropy_coefficient must not be negative",
        ),
        (
            a.reference_refresh_steps is not None and not keeps_reference(config),
            "algorithm.reference_refresh_steps is set, but kl_coefficient=0 needs no reference: unset one or set the other",
        ),
        (
            a.reference_refresh_steps is not None and a.reference_refresh_steps < 1,
            "algorithm.reference_refresh_steps must be at least 1, or null for the first policy",
        ),
    ]


def _importance_rules(config: Config) -> list[Rule]:
    a, rollout = config.algorithm, config.rollout
    uses_behavior = a.importance == "behavior" or a.is_correction != "none"
    return [
        (
            a.is_correction != "none" and a.importance != "decoupled",
            f"algorithm.is_correction={a.is_correction} weighs proximal against behaviour: set algorithm.importance=decoupled",
        ),
        (
            a.is_correction != "none" and a.loss == "gspo",
            f"gspo has one ratio per sequence, is_correction={a.is_correction} one weight per token: use importance=behavior",
        ),
        (a.is_correction != "none" and a.is_cap <= 1, f"algorithm.is_cap={a.is_cap} must be above 1"),
        (rollout.temperature <= 0, "rollout.temperature must be positive: a greedy policy has no gradient to follow"),
        (
            uses_behavior and rollout.top_p < 1,
            f"with rollout.top_p={rollout.top_p} vLLM's log-probabilities are those of the nucleus, not of the policy: "
            "set rollout.top_p=1, or algorithm.importance=decoupled without is_correction",
        ),
    ]


def _length_rules(config: Config) -> list[Rule]:
    a, limit = config.algorithm, config.rollout.max_new_tokens
    return [
        (
            not 0 <= a.overlong_buffer_tokens < limit,
            f"algorithm.overlong_buffer_tokens={a.overlong_buffer_tokens} must lie within rollout.max_new_tokens={limit}",
        ),
        (
            a.overlong_penalty < 0,
            "algorithm.overlong_penalty is what is taken away: it must not be negative",
        ),
    ]


def check_learner(config: Config) -> None:
    """Raise ConfigError where policy optimisation asks `learner` or `model` for what cannot be done."""
    learner, optimizer = config.learner, config.learner.optimizer
    per_step, parts = learner.groups_per_step, learner.minibatches
    _refuse(
        [
            *_engine_rules(config),
            (
                parts < 1 or per_step % parts != 0,
                f"learner.minibatches={parts} must divide learner.groups_per_step={per_step}",
            ),
            (
                not 0 <= optimizer.warmup_steps <= config.run.steps,
                f"learner.optimizer.warmup_steps={optimizer.warmup_steps} must lie within run.steps={config.run.steps}",
            ),
        ]
    )


def check_engine(config: Config) -> None:
    """Raise ConfigError where `learner` or `model` ask for what DeepSpeed or the packing cannot do, in any training."""
    _refuse(_engine_rules(config))


def _engine_rules(config: Config) -> list[Rule]:
    learner, model, optimizer = config.learner, config.model, config.learner.optimizer
    return [
        _unknown("model.dtype", model.dtype, ("float32", "bfloat16")),
        _unknown("model.attention", model.attention, ("auto", "packed", "flash_attention_2")),
        _unknown("learner.optimizer.schedule", optimizer.schedule, SCHEDULES),
        (learner.zero_stage not in range(4), f"learner.zero_stage={learner.zero_stage} must be 0, 1, 2 or 3"),
        (
            learner.zero_stage == 0 and model.dtype == "bfloat16",
            "learner.zero_stage=0 keeps no float32 weights beside bfloat16 ones: set zero_stage=1, or model.dtype=float32",
        ),
        (
            learner.offload_optimizer and learner.zero_stage == 0,
            "learner.offload_optimizer needs learner.zero_stage >= 1",
        ),
        (
            learner.offload_parameters and learner.zero_stage != 3,
            "learner.offload_parameters needs learner.zero_stage=3",
        ),
        (
            (learner.offload_optimizer or learner.offload_parameters) and not learner.num_gpus,
            "learner.offload_* moves state from the GPU, but learner.num_gpus=0",
        ),
        (
            learner.micro_batch_tokens < model.max_length,
            f"learner.micro_batch_tokens={learner.micro_batch_tokens} must hold one sequence: "
            f"at least model.max_length={model.max_length}",
        ),
        (optimizer.lr <= 0, f"learner.optimizer.lr={optimizer.lr} must be positive"),
        (
            not 0 <= optimizer.min_lr_ratio <= 1,
            f"learner.optimizer.min_lr_ratio={optimizer.min_lr_ratio} must lie in [0, 1]",
        ),
    ]


def _unknown(key: str, value: str, known: object) -> Rule:
    names = list(known)  # type: ignore[call-overload]
    return value not in names, f"{key}={value} is unknown: one of {', '.join(names)}"


def _refuse(rules: list[Rule]) -> None:
    broken = [message for is_broken, message in rules if is_broken]
    if broken:
        raise ConfigError("; ".join(broken))
