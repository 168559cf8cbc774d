"""Section `rollout`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from r1ray.config.annotations import Doc, Range


@dataclass
class EngineConfig:
    """The vLLM engine of each rollout worker."""

    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], Doc("type of the weights; auto: model.dtype")
    ] = "auto"
    max_num_seqs: Annotated[int, Range(ge=1), Doc("sequences decoded at once")] = 256
    kv_cache_gib: Annotated[
        float | None, Range(gt=0), Doc("size of the KV cache; null: vLLM decides; must be set on a CPU")
    ] = None
    gpu_memory_utilization: Annotated[float, Range(gt=0, le=1), Doc("share of a GPU's memory that vLLM takes")] = 0.85
    tensor_parallel_size: Annotated[int, Range(ge=1), Doc("GPUs of one engine")] = 1
    hosts: Annotated[
        int,
        Range(ge=1),
        Doc("hosts of one engine, with equal shares of its GPUs; above 1: vLLM's Ray executor, on a joined cluster"),
    ] = 1
    enforce_eager: Annotated[bool, Doc("no CUDA graphs and no compilation; must be true on a CPU")] = False
    prefix_caching: Annotated[bool, Doc("compute a prompt once for its whole group")] = True
    extra: Annotated[dict[str, Any], Doc("further fields of vLLM's EngineArgs, passed unchanged")] = field(
        default_factory=dict
    )


@dataclass
class LengthConfig:
    """One entry of the length schedule."""

    from_step: Annotated[int, Range(ge=0), Doc("training step from which the limit applies")] = 0
    max_new_tokens: Annotated[int, Range(ge=1), Doc("limit of a completion from then on")] = 2048


@dataclass
class AutoscaleConfig:
    """Bounds between which the number of rollout workers of `r1ray train` follows the load."""

    min: Annotated[int | None, Range(ge=1), Doc("fewest workers; null: their number changes by `r1ray scale` only")] = (
        None
    )
    max: Annotated[int | None, Range(ge=1), Doc("most workers, at most rollout.max_workers")] = None
    window_s: Annotated[float, Range(gt=0), Doc("seconds of one window of load; several steps should fit in")] = 60.0


@dataclass
class RolloutConfig:
    """Generation of training completions."""

    workers: Annotated[int, Range(ge=1), Doc("rollout workers at the start, one vLLM engine each")] = 1
    max_workers: Annotated[int, Range(ge=1), Doc("most workers at any time")] = 8
    autoscale: AutoscaleConfig = field(default_factory=AutoscaleConfig)
    num_cpus: Annotated[float, Range(ge=0), Doc("Ray CPUs of each worker")] = 1.0
    num_gpus: Annotated[
        float,
        Range(ge=0),
        Doc("Ray GPUs of each worker, or of each of its tensor-parallel processes; 0: vLLM runs on the CPU"),
    ] = 1.0
    group_size: Annotated[int, Range(ge=1), Doc("G, completions per prompt")] = 16
    temperature: Annotated[float, Range(gt=0, le=10), Doc("sampling temperature of training completions")] = 1.0
    top_p: Annotated[
        float,
        Range(gt=0, le=1),
        Doc("nucleus of training completions; below 1, recorded log-probabilities are relative to the nucleus"),
    ] = 1.0
    max_new_tokens: Annotated[int, Range(ge=1), Doc("limit of a completion, in tokens")] = 2048
    length_schedule: Annotated[
        list[LengthConfig], Doc("other limits from later steps on, in the order of the steps")
    ] = field(default_factory=list)
    groups_in_engine: Annotated[
        int, Range(ge=1), Doc("groups whose completions one worker keeps in its engine at once")
    ] = 32
    spot_notice: Annotated[
        Literal["none", "aws"],
        Doc("aws: watch for EC2's notice that it takes the spot instance back, and drain its workers in time"),
    ] = "none"
    engine: EngineConfig = field(default_factory=EngineConfig)
