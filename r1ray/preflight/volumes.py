"""Bytes that a run reads, writes and sends, and the seconds that takes at the speeds of `hardware`."""

from __future__ import annotations

import math
from collections.abc import Iterator

from r1ray.config.problems import Problem, problem, value_at
from r1ray.config.rules import copies_reference
from r1ray.config.schema import Config
from r1ray.config.uses import Use, processes
from r1ray.models.folder import ModelShape
from r1ray.preflight.memory import BYTES, trained_parameters
from r1ray.util.formatting import duration

STATE_BYTES = 12
"""Of one parameter in a checkpoint: float32 weights and two moments."""

STAGING_GB_S = 20.0
"""Copy between a GPU and pinned host memory over PCIe 4 x16, which has 32 GB/s by its specification."""

READ_BACK_GB_S = 1.5
"""Comparison of an engine's weights with what arrived, by one CPU thread (`sync.digest: full`)."""


def model_bytes(config: Config, shape: ModelShape) -> float:
    """The weights in the compute type, as they are loaded and sent."""
    return float(shape.parameters * BYTES[config.model.dtype])


def checkpoint_bytes(config: Config, shape: ModelShape) -> float:
    """One checkpoint: optimiser state, and the reference policy if it has weights of its own."""
    reference = BYTES[config.model.dtype] * shape.parameters if copies_reference(config) else 0
    return STATE_BYTES * trained_parameters(config, shape) + reference


def load_seconds(config: Config, shape: ModelShape) -> float:
    """A host reads the model once: learner rank 0 for all ranks, and engines share the file cache.

    What rank 0 sends while it reads is not counted: networks are faster than disks.
    """
    return model_bytes(config, shape) / (config.hardware.disk_mb_s * 1e6)


def learner_hosts(config: Config) -> int:
    """Hosts that the learner ranks are on, if each has as many of them as it has GPUs for."""
    learner, hardware = config.learner, config.hardware
    if hardware.gpu == "cpu" or not learner.num_gpus:
        return 1
    on_a_host = max(1, int(hardware.per_node / learner.num_gpus))
    return min(hardware.nodes, math.ceil(learner.ranks / on_a_host))


def checkpoint_seconds(config: Config, shape: ModelShape) -> float:
    """Each host writes, or reads, the shares of its ranks, which hash them meanwhile (learner/checkpoint.py)."""
    return checkpoint_bytes(config, shape) / learner_hosts(config) / (config.hardware.disk_mb_s * 1e6)


def sync_seconds(config: Config, shape: ModelShape) -> float:
    """One weight sync: network, staging at both ends, and the read-back, one after the other."""
    sent, gpus = model_bytes(config, shape), config.rollout.num_gpus > 0
    seconds = sent / (config.hardware.network_gb_s * 1e9)
    if gpus:
        seconds += 2 * sent / (STAGING_GB_S * 1e9)
    if config.sync.digest == "full":
        seconds += sent / (READ_BACK_GB_S * 1e9)
    return seconds


def deadline_problems(config: Config, shape: ModelShape, use: Use) -> Iterator[Problem]:
    """Find deadlines that expire before the declared hardware has moved the bytes."""
    sections = processes(config, use)
    needed = {"deadlines.actor_start_s": (load_seconds(config, shape), "to read the model", model_bytes(config, shape))}
    if "learner" in sections:
        seconds, size = checkpoint_seconds(config, shape), checkpoint_bytes(config, shape)
        hosts = learner_hosts(config)
        what = "to write or read a checkpoint" + (f", a share on each of {hosts} hosts" if hosts > 1 else "")
        needed["deadlines.checkpoint_s"] = (seconds, what, size)
    if use == "train" and "rollout" in sections:
        what = "to send the weights to the rollout workers"
        needed["sync.deadline_s"] = (sync_seconds(config, shape), what, model_bytes(config, shape))
    for key, (seconds, what, size) in needed.items():
        if value_at(config, key) < seconds:
            speed = "network_gb_s" if key.startswith("sync") else "disk_mb_s"
            declared = f"hardware.{speed} = {value_at(config, f'hardware.{speed}'):g}"
            message = f"is too short {what}: {size / 1e9:,.0f} GB take about {duration(seconds)} at {declared}"
            yield problem(config, key, message, f"at least {math.ceil(seconds)}, or faster hardware")
