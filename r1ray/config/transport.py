"""Selection of the transport for weight syncs (`sync.transport: auto`), and its checks; see `checks`."""

from __future__ import annotations

from collections.abc import Iterator

from r1ray.config.problems import Problem, problem, value_at
from r1ray.config.schema import Config


def transport_of(config: Config) -> str:
    """Return gloo, nccl or ipc: the configured transport, or the one that suits the devices.

    NCCL needs one GPU per process. A learner rank and a rollout worker that share a GPU use its memory directly (ipc).
    """
    if config.sync.transport != "auto":
        return config.sync.transport
    if not (config.learner.num_gpus and config.rollout.num_gpus):
        return "gloo"
    shared = config.learner.num_gpus + config.rollout.num_gpus * config.rollout.engine.tensor_parallel_size <= 1
    return "ipc" if shared and _one_to_one(config) else "nccl"


def transport(config: Config) -> Iterator[Problem]:
    """Find devices, senders and an encoding that the transport cannot serve, and a digest that needs the whole weights
    of a sharded engine.
    """
    if config.rollout.engine.tensor_parallel_size > 1 and config.sync.digest == "full":
        message = "reads back whole weights, but each tensor-parallel process holds a shard"
        yield problem(config, "sync.digest", message, "use wire, or rollout.engine.tensor_parallel_size=1")
    if (method := config.rollout.engine.extra.get("quantization")) is not None:
        message = (
            "makes every engine quantize the weights that arrive: no such engine has been compared with the learner, "
            "and the read-back compares unquantized weights"
        )
        fix = "remove it; `r1ray eval` and `r1ray sample` may have one"
        yield Problem(key="rollout.engine.extra.quantization", value=method, message=message, fix=fix)
    chosen = transport_of(config)
    gpus = {key: value_at(config, key) for key in ("learner.num_gpus", "rollout.num_gpus")}
    without = [key for key, number in gpus.items() if number == 0]
    alone = "learner.ranks=1 rollout.workers=1 rollout.max_workers=1"
    if config.sync.encoding == "delta" and chosen != "gloo":
        message = f"compares weights in host memory, but sync.transport is {chosen}"
        yield problem(config, "sync.encoding", message, "use full, or sync.transport=gloo")
    if config.sync.senders == "all" and chosen != "gloo":
        message = f"forms a group for each learner rank, but sync.transport is {chosen}"
        yield problem(config, "sync.senders", message, "use first, or sync.transport=gloo")
    if chosen in ("nccl", "ipc") and without:
        message = f"moves weights between GPUs, but {' and '.join(without)} {'is' if len(without) == 1 else 'are'} 0"
        yield problem(config, "sync.transport", message, "use gloo or auto")
    elif chosen == "ipc" and not _one_to_one(config):
        message = "shares the memory of one GPU between one learner rank and one rollout worker"
        yield problem(config, "sync.transport", message, f"set {alone}, or use nccl")
    elif chosen == "nccl" and (key := _sharing(config)) is not None:
        message = "lets two processes share a GPU, but NCCL needs one GPU for each rank and worker"
        yield problem(config, key, message, f"use more than half a GPU, or sync.transport=ipc {alone}")


def _sharing(config: Config) -> str | None:
    """Return the key of a GPU share so small that Ray may place two processes on one GPU; None if there is none."""
    learner, rollout = config.learner, config.rollout
    workers = max(rollout.workers, rollout.max_workers)
    if (learner.ranks > 1 and 2 * learner.num_gpus <= 1) or learner.num_gpus + rollout.num_gpus <= 1:
        return "learner.num_gpus"
    return "rollout.num_gpus" if workers > 1 and 2 * rollout.num_gpus <= 1 else None


def _one_to_one(config: Config) -> bool:
    return config.learner.ranks == 1 and max(config.rollout.workers, config.rollout.max_workers) == 1
