"""The typed configuration. Every key has one home here and a one-line comment in conf/base.yaml.

Values are checked one by one in `load.py` (types, unknown keys) and together in `checks.py` (impossible combinations).
Units are in the names: `_s` seconds, `_tokens`, `_bytes`, `_gib`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from r1ray.config.stages import CurationConfig, SamplingConfig, SftConfig


@dataclass
class RunConfig:
    name: str = "run"
    dir: str = "runs/run"  # the run folder
    steps: int = 100  # training steps; step t turns policy t into policy t + 1
    seed: int = 0
    deterministic: bool = False  # bit-equal on resume; needs max_staleness 0 and one rollout worker


@dataclass
class ModelConfig:
    path: str = "???"  # folder in the Hugging Face format, or "tiny": the embedded model, built where it is missing
    dtype: str = "bfloat16"  # float32 | bfloat16: the learner's compute type
    max_length: int = 4096  # prompt and completion together, in tokens
    attention: str = "auto"  # auto | packed | flash_attention_2
    activation_checkpointing: bool = False


@dataclass
class SourceConfig:
    name: str = "???"  # the `task` of its prompts, and how rewards and reports name it
    kind: str = "synthetic"  # synthetic | jsonl | parquet | hf
    path: str | None = None  # file, folder or hub id; for synthetic: the task's name
    preset: str | None = None  # columns and params of a known data set: gsm8k, math, dapo_17k, ...
    split: str = "train"
    weight: float = 1.0  # share in a mixture
    columns: dict[str, str] = field(default_factory=dict)  # prompt, messages, answer, id, ... -> column of the file
    params: dict[str, Any] = field(default_factory=dict)  # of the synthetic task, or of the loader
    limit: int | None = None  # take the first N rows
    rewards: list[str] | None = None  # names out of `rewards`; null: all of them
    from_step: int = 0  # joins the mixture at this training step


@dataclass
class DataConfig:
    train: list[SourceConfig] = field(default_factory=list)
    evaluation: list[SourceConfig] = field(default_factory=list)
    template: str = "tokenizer"  # r1_zero | r1 | plain | tokenizer | none
    template_args: dict[str, Any] = field(default_factory=dict)  # of the chat template, e.g. {enable_thinking: false}
    system_prompt: str | None = None
    shuffle: bool = True
    max_prompt_tokens: int = 1024  # longer prompts are dropped and counted
    decontaminate: bool = (
        False  # drop training prompts that share 10-grams with `evaluation` or `decontaminate_against`
    )
    decontaminate_against: list[SourceConfig] = field(default_factory=list)  # benchmarks that are evaluated elsewhere


@dataclass
class RewardConfig:
    name: str = "???"  # accuracy | format | ... or module:function
    weight: float = 1.0
    params: dict[str, Any] = field(default_factory=dict)


@dataclass
class RewardWorkerConfig:
    workers: int = 1
    num_cpus: float = 0.1  # Ray CPUs of each
    num_gpus: float = 0.0
    timeout_s: float = 10.0  # wall clock of one verification
    sandbox: str = "bubblewrap"  # bubblewrap | none


@dataclass
class EngineConfig:
    dtype: str = "auto"  # auto: the learner's dtype
    max_num_seqs: int = 256  # sequences decoded at once
    kv_cache_gib: float | None = None  # null: vLLM's own share of GPU memory; needed on CPU
    gpu_memory_utilization: float = 0.85
    tensor_parallel_size: int = 1
    enforce_eager: bool = False  # true on CPU
    prefix_caching: bool = True
    extra: dict[str, Any] = field(default_factory=dict)  # passed to vLLM's EngineArgs as they are


@dataclass
class LengthConfig:
    from_step: int = 0
    max_new_tokens: int = 2048


@dataclass
class RolloutConfig:
    workers: int = 1
    max_workers: int = 8  # ceiling of `r1ray scale`
    num_cpus: float = 1.0  # Ray CPUs of each worker
    num_gpus: float = 1.0
    group_size: int = 16  # G, completions per prompt
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 2048
    length_schedule: list[LengthConfig] = field(default_factory=list)  # longer, or shorter, from a step on
    groups_in_engine: int = 32  # groups that one worker keeps in its engine at once
    engine: EngineConfig = field(default_factory=EngineConfig)


@dataclass
class QueueConfig:
    max_staleness: int = 1  # 0: synchronous and on-policy; n: trained at most n steps after it was begun
    lease_timeout_s: float = 600.0  # a group not scored by then is leased again
    max_attempts: int = 3  # leases of one prompt that may fail before it is dropped
    max_requeues: int = (
        10  # leases of one prompt that may lapse, or end with their worker's death, before it is dropped
    )
    stale_policy: str = "requeue"  # requeue | drop: what happens to the prompt of a group that got too old
    reserve_after_stale: int = (
        1  # stale groups of a prompt after which the step waits for its next one; 0: for every group
    )
    keep_payload_steps: int | None = None  # null: keep all payloads for `inspect`; n: of the last n trained steps


@dataclass
class AlgorithmConfig:
    loss: str = "grpo"  # grpo | dr_grpo | dapo | gspo | cispo | module:function
    advantage: str = "group_norm"  # group_norm | mean_only | leave_one_out | reinforce_pp | module:function
    loss_aggregation: str = "token"  # token | sequence | constant (dr_grpo: by max_new_tokens)
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_coefficient: float = 0.0
    reference_refresh_steps: int | None = None  # null: the reference stays the first policy
    importance: str = "behavior"  # behavior: ratio to vLLM's logprobs | decoupled: to recomputed proximal logprobs
    importance_correction: str = "none"  # none | truncated | masked (decoupled only: proximal against behaviour)
    importance_cap: float = (
        2.0  # truncated: upper bound of the weight; masked: tokens outside [1/cap, cap] are left out
    )
    entropy_coefficient: float = 0.0
    dynamic_sampling: bool = False  # drop groups whose rewards are all equal, and replace them
    overlong_buffer_tokens: int = 0  # soft overlong penalty over the last N tokens before max_new_tokens; 0: off
    overlong_penalty: float = 1.0
    mask_truncated: bool = False  # leave completions cut at max_new_tokens out of the loss


@dataclass
class OptimizerConfig:
    lr: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    schedule: str = "constant"  # constant | linear | cosine, after the warm-up
    warmup_steps: int = 0  # in training steps
    min_lr_ratio: float = 0.0  # floor of the schedule as a share of lr


@dataclass
class LearnerConfig:
    ranks: int = 1
    num_cpus: float = 1.0  # Ray CPUs of each rank
    num_gpus: float = 1.0
    zero_stage: int = 1  # 0 to 3
    offload_optimizer: bool = False  # to host memory
    offload_parameters: bool = False  # ZeRO 3 only
    groups_per_step: int = 32  # B, prompts of one training step
    minibatches: int = 1  # optimiser steps of one training step
    micro_batch_tokens: int = 8192  # packed tokens of one forward pass, N
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass
class SyncConfig:
    transport: str = "auto"  # auto | gloo | nccl | ipc
    bucket_bytes: int = 67108864
    deadline_s: float = 60.0  # of one whole sync
    bucket_deadline_s: float = 30.0
    digest: str = "full"  # full: read back what is served | wire: only what was received | off
    interface: str | None = None  # network interface; null: by the address of the learner's node


@dataclass
class CheckpointConfig:
    every_steps: int = 20
    keep: int = 2  # newest whole checkpoints that stay
    keep_every_steps: int | None = None  # and every N-th for good
    export_final: bool = True  # write final/ in the Hugging Face format


@dataclass
class EvaluationConfig:
    every_steps: int = 0  # 0: only before the first and after the last step
    samples: int = 1  # k sampled completions per problem
    temperature: float = 1.0
    top_p: float = 1.0
    greedy: bool = True  # one greedy completion per problem besides
    max_new_tokens: int | None = None  # null: as in training


@dataclass
class HackingMonitorConfig:
    max_kl: float | None = None  # with kl_coefficient 0 a reference is kept for it
    max_length_correlation: float | None = None
    consecutive_steps: int = 5


@dataclass
class DeadlineConfig:
    actor_start_s: float = 900.0
    rpc_s: float = 60.0
    step_s: float = 1800.0  # one training step of the learner
    batch_s: float = 3600.0  # waiting for a whole batch
    checkpoint_s: float = 1800.0
    evaluation_s: float = 3600.0
    shutdown_s: float = 60.0  # grace of SIGTERM: checkpoint and exit
    collective_s: float = 600.0  # one collective among learner ranks


@dataclass
class RecoveryConfig:
    max_worker_restarts: int = 10  # in a row for each: rollout workers (reset by one that generates), reward workers
    max_learner_restarts: int = 5  # in a row; reset by a checkpoint
    max_queue_restarts: int = 20  # in a row; reset by a training step
    max_missed_syncs: int = 5  # weight syncs in a row that a rollout worker may miss before it is replaced
    outage_timeout_s: float = 600.0  # how long a full disk, a judge that is down, or a restarting actor is waited out
    max_nan_steps: int = 3  # skipped steps in a row before the policy rolls back to the checkpoint before them
    max_nan_rollbacks: int = 2  # in a row; reset by training past them
    max_dropped_batches: int = 10  # batches' worth of groups dropped in a row before the run ends: no group to train on
    max_memory_fraction: float = 0.9  # of a host's memory in use: above it its rollout workers lease nothing more
    stall_timeout_s: float = 600.0  # nothing moved for so long: write a diagnosis
    stall_policy: str = "warn"  # warn | restart | abort


@dataclass
class RayConfig:
    address: str | None = None  # null: start a local cluster; "auto" or host:port: join one
    num_cpus: int | None = None  # of the local cluster; null: the machine's
    temp_dir: str | None = None
    object_store_gib: float = 0.3  # of the local cluster
    rollout_resources: dict[str, float] = field(default_factory=dict)  # custom Ray resources, e.g. {rollout: 1}
    learner_resources: dict[str, float] = field(default_factory=dict)
    reward_resources: dict[str, float] = field(default_factory=dict)
    queue_resources: dict[str, float] = field(default_factory=dict)


@dataclass
class LoggingConfig:
    tensorboard: bool = True
    wandb_project: str | None = None
    transcripts_per_step: int = 4  # sample completions kept for the report


@dataclass
class Config:
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    rewards: list[RewardConfig] = field(default_factory=list)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    reward_worker: RewardWorkerConfig = field(default_factory=RewardWorkerConfig)
    queue: QueueConfig = field(default_factory=QueueConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    hacking_monitor: HackingMonitorConfig = field(default_factory=HackingMonitorConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    curation: CurationConfig = field(default_factory=CurationConfig)
    deadlines: DeadlineConfig = field(default_factory=DeadlineConfig)
    recovery: RecoveryConfig = field(default_factory=RecoveryConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
