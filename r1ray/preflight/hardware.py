"""Compare a configuration with the hardware that it declares (section `hardware`), on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from r1ray.config.problems import Problem, problem
from r1ray.config.schema import Config
from r1ray.config.uses import Use
from r1ray.models.folder import ModelShape
from r1ray.preflight.accelerators import ACCELERATORS, Accelerator
from r1ray.preflight.memory import cache_bytes
from r1ray.preflight.nearest import nearest_learners
from r1ray.preflight.roles import Role
from r1ray.preflight.volumes import deadline_problems
from r1ray.util.machine import GIB

Node = dict[str, int]
"""Name of a role -> its actors on one host."""


def hardware_problems(config: Config, roles: Sequence[Role], shape: ModelShape, use: Use) -> Iterator[Problem]:
    """Find what does not fit the declared hosts, each with the nearest setting that does.

    Nothing if none is declared.
    """
    if config.hardware.gpu is None:
        return
    device = ACCELERATORS[config.hardware.gpu]
    by_place = [*_gpu_problems(config, roles)]
    yield from by_place
    yield from _learner_problems(config, roles, shape, use, device)
    yield from _engine_problems(config, roles, shape, device)
    if not by_place:
        yield from _host_problems(config, roles)
    yield from deadline_problems(config, shape, use)


def place(config: Config, roles: Sequence[Role]) -> list[Node]:
    """The actors of each host: those with GPUs role by role, the others on the first host, as many hosts as it takes.

    Assumes that Ray packs the hosts. Raises ValueError if an actor takes more GPUs than a host has.
    """
    room = 0.0 if config.hardware.gpu == "cpu" else float(config.hardware.per_node)
    if any(role.gpus > room for role in roles):
        raise ValueError("an actor takes more GPUs than a host has")
    free: list[float] = []
    nodes: list[Node] = []
    for role in roles:
        left, at = role.parts, 0
        while left:
            if at == len(nodes):
                nodes.append({})
                free.append(room)
            fits = left if not role.gpus else min(left, int(free[at] / role.gpus + 1e-9))
            if fits:
                nodes[at][role.name] = fits
                free[at] -= fits * role.gpus
                left -= fits
            at += 1
    return nodes


def host_bytes(node: Node, roles: Sequence[Role]) -> float:
    """Memory of the actors of one host."""
    return sum(node.get(role.name, 0) * sum(role.host.values()) for role in roles)


def _gpu_problems(config: Config, roles: Sequence[Role]) -> Iterator[Problem]:
    """GPUs that no host has, or that all hosts together do not have."""
    hardware = config.hardware
    if hardware.gpu == "cpu":
        for role in roles:
            if role.gpus:
                key = f"{_section(role)}.num_gpus"
                yield problem(config, key, "requests a GPU, and hardware.gpu is cpu", f"{key}=0, or name the GPU")
        return
    for role in roles:
        if role.gpus > hardware.per_node:
            message = f"makes one {role.name} need {role.gpus:g} GPUs of one host, which has {hardware.per_node}"
            key, fix = f"{_section(role)}.num_gpus", f"hardware.per_node={role.gpus:g}"
            if role.name == "rollout worker":
                size = config.rollout.engine.tensor_parallel_size
                key, fix = "rollout.engine.tensor_parallel_size", f"rollout.engine.hosts={_hosts_for(config, size)}"
            yield problem(config, key, message, f"at most {hardware.per_node}, or {fix}")
            return
    if (needed := len(place(config, roles))) > hardware.nodes:
        parts = ", ".join(f"{r.parts * r.gpus:g} for {r.count} {r.name}{'s' * (r.count > 1)}" for r in roles if r.gpus)
        message = f"with {hardware.per_node} GPUs each are too few: {parts} need {needed}"
        yield problem(config, "hardware.nodes", message, f"{needed}, or fewer learner.ranks or rollout.workers")


def _hosts_for(config: Config, size: int) -> int:
    """The fewest hosts that hold `size` GPUs of one engine in equal shares."""
    return next(n for n in range(1, size + 1) if size % n == 0 and size // n <= config.hardware.per_node)


def _learner_problems(
    config: Config, roles: Sequence[Role], shape: ModelShape, use: Use, device: Accelerator
) -> Iterator[Problem]:
    learner = next((r for r in roles if r.name == "learner rank" and r.gpus), None)
    if learner is None or device.memory_bytes == 0:
        return
    needed, there = sum(learner.device.values()), device.memory_bytes * min(1.0, learner.gpus)
    if needed > there:
        largest = sorted(learner.device, key=lambda name: -learner.device[name])[:2]
        message = (
            f"makes a rank need about {needed / GIB:.1f} GiB, a {config.hardware.gpu} has {there / GIB:.1f}; most of "
            "it: " + ", ".join(f"{name} {learner.device[name] / GIB:.1f}" for name in largest)
        )
        found = nearest_learners(config, shape, use)
        fix = (
            "; or ".join(found) if found else "no single change is enough: a smaller model, or more of several of these"
        )
        yield problem(config, "learner.micro_batch_tokens", message, fix)


def _engine_problems(
    config: Config, roles: Sequence[Role], shape: ModelShape, device: Accelerator
) -> Iterator[Problem]:
    """An engine needs its share of the weights and a cache for one longest sequence."""
    rollout = next((r for r in roles if r.name == "rollout worker" and r.gpus), None)
    if rollout is None or device.memory_bytes == 0:
        return
    engine, weights = config.rollout.engine, rollout.device["weights"]
    parts, cached = engine.tensor_parallel_size, config.model.max_length * cache_bytes(config, shape)
    needed = weights + (cached if shape.latent else cached / parts)  # a compressed cache has no heads to divide
    share = engine.gpu_memory_utilization * device.memory_bytes
    if needed > share:
        least = (weights * parts + (0 if shape.latent else cached)) / (share - (cached if shape.latent else 0))
        sizes = [n for n in (2**i for i in range(12)) if n >= least and shape.divides(n)]
        message = (
            f"makes a GPU hold {needed / GIB:.1f} GiB of weights and a longest sequence, "
            f"vLLM may take {share / GIB:.1f} of a "
        )
        fix = _size_fix(config, sizes[0]) if sizes else "no size that divides its attention heads is enough"
        larger = [n for n, d in ACCELERATORS.items() if needed <= engine.gpu_memory_utilization * d.memory_bytes]
        fix += f", or hardware.gpu={min(larger, key=lambda n: ACCELERATORS[n].memory_gb)}" if larger else ""
        yield problem(config, "rollout.engine.tensor_parallel_size", f"{message}{config.hardware.gpu}", fix)


def _size_fix(config: Config, size: int) -> str:
    per_node = config.hardware.per_node
    if size <= per_node * config.rollout.engine.hosts:
        return f"{size}"
    return f"{size} with rollout.engine.hosts={_hosts_for(config, size)}"


def _host_problems(config: Config, roles: Sequence[Role]) -> Iterator[Problem]:
    nodes = place(config, roles)
    fullest = max(nodes, key=lambda node: host_bytes(node, roles), default=None)
    if fullest is None or (needed := host_bytes(fullest, roles)) <= config.hardware.host_gib * GIB:
        return
    by_size = sorted((r for r in roles if r.name in fullest), key=lambda r: -fullest[r.name] * sum(r.host.values()))
    role = by_size[0]
    item = max(role.host, key=lambda name: role.host[name])
    message = (
        f"is less than the {needed / GIB:,.0f} GiB that a host with {fullest[role.name]} {role.name}s needs; "
        f"most of it: {item}, {role.host[item] / GIB:,.0f} GiB each"
    )
    yield problem(config, "hardware.host_gib", message, f"{needed / GIB:.0f}, or fewer of them on a host")


def _section(role: Role) -> str:
    return {"learner rank": "learner", "rollout worker": "rollout", "reward worker": "reward_worker"}[role.name]
