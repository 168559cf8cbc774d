"""How weights reach the rollout workers: what `sync.transport: auto` stands for, and what may not be; see `checks`."""

from __future__ import annotations

from collections.abc import Iterator

from r1ray.config.problems import Problem, problem, value_at
from r1ray.config.schema import Config


def transport_of(config: Config) -> str:
    """gloo, nccl or ipc: the configured one, or the one that suits the devices.

    NCCL wants a GPU for each of its members, so a rank and a worker that share one have its memory in common instead.
    """
    if config.sync.transport != "auto":
        return config.sync.transport
    if not (config.learner.num_gpus and config.rollout.num_gpus):
        return "gloo"
    shared = config.learner.num_gpus + config.rollout.num_gpus * config.rollout.engine.tensor_parallel_size <= 1
    return "ipc" if shared and _one_to_one(config) else "nccl"


def transport(config: Config) -> Iterator[Problem]:
    """Devices that the transport cannot serve, and weights that cannot be read back behind it."""
    if config.rollout.engine.tensor_parallel_size > 1 and config.sync.digest == "full":
        message = "reads back whole weights, but each process of a split model holds a shard of them"
        yield problem(config, "sync.digest", message, "wire, or rollout.engine.tensor_parallel_size=1")
    chosen = transport_of(config)
    gpus = {key: value_at(config, key) for key in ("learner.num_gpus", "rollout.num_gpus")}
    without = [key for key, number in gpus.items() if number == 0]
    parts = [key for key, number in gpus.items() if number % 1]
    alone = "learner.ranks=1 rollout.workers=1 rollout.max_workers=1"
    if chosen in ("nccl", "ipc") and without:
        message = f"moves weights between GPUs, but {' and '.join(without)} is 0"
        yield problem(config, "sync.transport", message, "gloo or auto")
    elif chosen == "ipc" and not _one_to_one(config):
        message = "shares the memory of one GPU between one learner rank and one rollout worker"
        yield problem(config, "sync.transport", message, f"{alone}, or nccl")
    elif chosen == "nccl" and parts:
        message = "is a part of a GPU, but NCCL, which moves the weights, wants one for each rank and worker"
        yield problem(config, parts[0], message, f"a whole number, or sync.transport=ipc {alone}")


def _one_to_one(config: Config) -> bool:
    return config.learner.ranks == 1 and max(config.rollout.workers, config.rollout.max_workers) == 1
