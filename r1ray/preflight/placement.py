"""Placement and memory of the actors of a run, before they start.

`memory` computes the memory of a learner rank. All figures are estimates for refusing configurations that cannot work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from r1ray.config.problems import Problem, problem
from r1ray.config.schema import Config
from r1ray.config.uses import Use, processes
from r1ray.models.folder import ModelShape
from r1ray.preflight.hardware import hardware_problems
from r1ray.preflight.memory import BYTES, cache_bytes, engine_item_bytes, learner_bytes
from r1ray.preflight.reward_memory import reward_model_bytes
from r1ray.preflight.roles import Role
from r1ray.util.machine import GIB, Machine

# Host memory of a process besides the model, in GiB: as measured with `ps` in the embedded run, plus a quarter.
LEARNER_BASE_GIB = 0.7  # torch, DeepSpeed, transformers
ROLLOUT_BASE_GIB = 0.9  # torch, vLLM
REWARD_BASE_GIB = 0.6  # with its verifier processes
QUEUE_BASE_GIB = 0.2
SYSTEM_BASE_GIB = 1.2  # Ray's own processes and the driver

QUEUE_CPUS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Placement and memory of a run. Producer: `make_plan`. Consumers: `train`, `train --dry-run`."""

    roles: tuple[Role, ...]
    machine: Machine | None  # None: the run joins a cluster
    cache_tokens: int | None  # capacity of one worker's KV cache; None: what the GPU leaves
    problems: tuple[Problem, ...]  # reasons why this machine cannot run it
    notes: tuple[str, ...] = ()  # what else a dry run shows

    def role(self, name: str) -> Role:
        """Return the role called `name`, with a count of 0 if the run has no such actors."""
        absent = Role(name=name, count=0, cpus=0, gpus=0, resources={})
        return next((r for r in self.roles if r.name == name), absent)

    @property
    def host_bytes(self) -> float:
        """Host memory of all actors together, with Ray and the driver."""
        return SYSTEM_BASE_GIB * GIB + sum(r.parts * sum(r.host.values()) for r in self.roles)

    def to_text(self) -> str:
        """Format the plan as two tables and a verdict."""
        lines = ["Placement (each actor)"]
        for r in self.roles:
            custom = "".join(f" {name}:{amount:g}" for name, amount in r.resources.items())
            spread = f"  on each of {r.hosts} hosts" if r.hosts > 1 else ""
            lines.append(f"  {r.count} x {r.name:<14} cpu {r.cpus:g}  gpu {r.gpus:g}{custom}{spread}")
        lines.append("Memory (each actor, GiB)")
        for r in self.roles:
            for where, items in (("gpu", r.device), ("host", r.host)):
                if items:
                    parts = ", ".join(f"{name} {amount / GIB:.2f}" for name, amount in items.items())
                    lines.append(f"  {r.name:<14} {where:<4} {sum(items.values()) / GIB:.2f}: {parts}")
        if self.cache_tokens is not None:
            lines.append(f"  a worker's KV cache holds {self.cache_tokens:,} tokens")
        if self.machine is None:
            lines.append(
                "This machine was not checked, because ray.address is set: the cluster provides memory and GPUs."
            )
            lines += [f"Does not fit: {p.key}: {p.message}; {p.fix}" for p in self.problems]
            return "\n".join([*lines, *self.notes])
        used, there = self.host_bytes / GIB, self.machine.memory_bytes / GIB
        lines.append(f"Host memory in all: {used:.1f} GiB of {there:.1f} GiB")
        lines += [f"Does not fit: {p.key}: {p.message}; {p.fix}" for p in self.problems]
        lines += [] if self.problems else ["Fits this machine."]
        return "\n".join([*lines, *self.notes])


def make_plan(config: Config, shape: ModelShape, machine: Machine, use: Use = "train") -> Plan:
    """Plan a run of `config` with a model of `shape`, on `machine` unless the run joins a cluster."""
    made = {
        "learner": _learner(config, shape, use),
        "rollout": _rollout(config, shape, use),
        "reward_worker": _reward(config),
    }
    sections = processes(config, use)
    roles = tuple(made[name] for name in sections)
    if use == "train":
        roles = (*roles, _queue(config))
    local = config.ray.address is None
    given = config.rollout.engine.kv_cache_gib
    plan = Plan(
        roles=roles,
        machine=machine if local else None,
        cache_tokens=None
        if given is None or "rollout" not in sections
        else int(given * GIB / cache_bytes(config, shape)),
        problems=(
            *(_cache_problems(config, shape) if "rollout" in sections else ()),
            *hardware_problems(config, roles, shape, use),
        ),
    )
    if not local:
        return plan
    here = (*_placement_problems(config, roles, machine), *_memory_problems(config, plan, machine))
    return replace(plan, problems=plan.problems + here)


def _learner(config: Config, shape: ModelShape, use: Use) -> Role:
    learner = config.learner
    device, host = learner_bytes(config, shape, use)
    host = {"process": LEARNER_BASE_GIB * GIB, **host}
    if use == "train" and config.sync.encoding == "delta":
        senders = learner.ranks if config.sync.senders == "all" else 1
        host["weights of the last sync"] = shape.parameters * BYTES[config.model.dtype] / senders  # of each that sends
    resources = config.ray.learner_resources
    return _role("learner rank", learner.ranks, learner.num_cpus, learner.num_gpus, resources, device, host)


def _rollout(config: Config, shape: ModelShape, use: Use) -> Role:
    rollout, engine = config.rollout, config.rollout.engine
    weights = float(shape.parameters * engine_item_bytes(config))
    device = {"weights": weights / engine.tensor_parallel_size}
    if engine.kv_cache_gib is not None:
        device["KV cache"] = engine.kv_cache_gib * GIB
    processes_here = engine.tensor_parallel_size / engine.hosts
    host = {"process": processes_here * ROLLOUT_BASE_GIB * GIB}
    if use == "train":
        host["staged weights"] = weights  # one copy for all workers of a host, so less if there are several
        if config.sync.encoding == "delta":
            host["weights of the last sync"] = weights  # likewise
    resources = config.ray.rollout_resources
    gpus, cpus = rollout.num_gpus * processes_here, rollout.num_cpus / engine.hosts
    role = _role("rollout worker", rollout.workers, cpus, gpus, resources, device, host)
    return replace(role, hosts=engine.hosts)


def _reward(config: Config) -> Role:
    reward, resources = config.reward_worker, config.ray.reward_resources
    device, host = reward_model_bytes(config)
    host = {"process": REWARD_BASE_GIB * GIB, **host}
    return _role("reward worker", reward.workers, reward.num_cpus, reward.num_gpus, resources, device, host)


def _queue(config: Config) -> Role:
    host = {"process": QUEUE_BASE_GIB * GIB, "object store": config.ray.object_store_gib * GIB}
    return _role("queue", 1, QUEUE_CPUS, 0, config.ray.queue_resources, {}, host)


def _role(
    name: str,
    count: int,
    cpus: float,
    gpus: float,
    resources: dict[str, float],
    device: dict[str, float],
    host: dict[str, float],
) -> Role:
    """Make a role. Without a GPU, the items of the device are in host memory."""
    if gpus == 0:
        device, host = {}, {**host, **device}
    return Role(name=name, count=count, cpus=cpus, gpus=gpus, resources=resources, device=device, host=host)


def _cache_problems(config: Config, shape: ModelShape) -> Iterator[Problem]:
    """Refuse a cache that is too small for one longest sequence, as vLLM does at its start."""
    given, longest = config.rollout.engine.kv_cache_gib, config.model.max_length
    needed = longest * cache_bytes(config, shape) / GIB
    if given is not None and given < needed:
        message = f"is too small for one sequence of model.max_length = {longest}, which takes {needed:.3g} GiB"
        yield problem(config, "rollout.engine.kv_cache_gib", message, f"at least {math.ceil(needed * 100) / 100}")


def _placement_problems(config: Config, roles: tuple[Role, ...], machine: Machine) -> Iterator[Problem]:
    gpus = sum(r.parts * r.gpus for r in roles)
    if gpus > machine.gpus > 0:
        message = f"with the other actors requests {gpus:g} GPUs, this machine has {machine.gpus}"
        yield problem(config, "rollout.num_gpus", message, "fewer workers or ranks, or shares below 1 of one GPU")
    for r in roles:
        if r.resources:
            message = f"{r.name} requests {r.resources}, which a local cluster does not have"
            yield problem(
                config, f"ray.{r.name.split()[0]}_resources", message, "{}, or ray.address of a cluster that has it"
            )


def _shared_copy_bytes(config: Config, rollout: Role) -> float:
    """Return what several receiving processes of one host take of /dev/shm. A process that is alone takes nothing.

    Without a GPU a model keeps views of what it was loaded from, until the next copy has been loaded.
    """
    if rollout.count * config.rollout.engine.tensor_parallel_size == 1:
        return 0.0
    return (1 if config.rollout.num_gpus else 2) * rollout.host.get("staged weights", 0.0)


def _memory_problems(config: Config, plan: Plan, machine: Machine) -> Iterator[Problem]:
    if plan.host_bytes > machine.memory_bytes:
        largest = max(plan.roles, key=lambda r: r.count * sum(r.host.values()))
        item = max(largest.host, key=lambda name: largest.host[name])
        message = (
            f"needs about {plan.host_bytes / GIB:.1f} GiB of memory in all, this machine has "
            f"{machine.memory_bytes / GIB:.1f} GiB; most of it: {largest.count} {largest.name}, {item}"
        )
        yield problem(config, "model.path", message, "a smaller model, micro-batch, KV cache or number of workers")
    store, rollout = config.ray.object_store_gib, plan.role("rollout worker")
    parallel = config.rollout.engine.tensor_parallel_size
    staged = _shared_copy_bytes(config, rollout) / GIB
    if staged and (store + staged) * GIB > machine.shared_memory_bytes:
        message = (
            f"stages {staged:.2f} GiB of weights in /dev/shm beside {store:g} GiB of object store, which has "
            f"{machine.shared_memory_bytes / GIB:.2f} GiB free"
        )
        key = "rollout.engine.tensor_parallel_size" if parallel > 1 else "rollout.workers"
        yield problem(config, key, message, "1, or a larger /dev/shm")
    elif store * GIB > machine.shared_memory_bytes:
        message = f"is more than /dev/shm has free, {machine.shared_memory_bytes / GIB:.2f} GiB"
        yield problem(config, "ray.object_store_gib", message, "less, or a larger /dev/shm (docker run --shm-size=2g)")
    if machine.gpus:
        yield from _gpu_problems(config, plan, min(machine.gpu_memory_bytes))


def _gpu_problems(config: Config, plan: Plan, gpu_bytes: int) -> Iterator[Problem]:
    """Compare with one GPU. If learner and rollout worker share it, vLLM takes its share whatever the model needs."""
    learner, rollout, reward = plan.role("learner rank"), plan.role("rollout worker"), plan.role("reward worker")
    training, weights = sum(learner.device.values()), sum(rollout.device.values())
    share = config.rollout.engine.gpu_memory_utilization
    together = 0 < learner.gpus + rollout.gpus <= 1 and learner.gpus > 0 and rollout.gpus > 0
    free = gpu_bytes * (1 - share) if together else gpu_bytes
    if learner.gpus and training > free:
        message = f"makes a rank need about {training / GIB:.1f} GiB, its GPU has {free / GIB:.1f} GiB"
        fix = "fewer learner.micro_batch_tokens, a higher learner.zero_stage, or more ranks"
        yield problem(config, "learner.micro_batch_tokens", f"{message} for it", fix)
    if rollout.gpus and weights > gpu_bytes * share:
        message = f"gives vLLM {gpu_bytes * share / GIB:.1f} GiB of a GPU, the model takes {weights / GIB:.1f} GiB"
        fix = "more, or a higher rollout.engine.tensor_parallel_size"
        yield problem(config, "rollout.engine.gpu_memory_utilization", message, fix)
    if reward.gpus and (scoring := sum(reward.device.values())) > gpu_bytes:
        message = (
            f"load {scoring / GIB:.1f} GiB of models into each reward worker, its GPU has {gpu_bytes / GIB:.1f} GiB"
        )
        yield problem(config, "rewards", message, "smaller models, a smaller batch_size, or dtype=bfloat16")
