"""Compare the resources that a run requests with those of a joined cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from r1ray.config.problems import Problem, problem
from r1ray.config.schema import Config
from r1ray.preflight.roles import Role

Resources = Mapping[str, float]
"""Ray's name of a resource -> amount."""

KEYS = {"learner": "learner", "rollout": "rollout", "reward": "reward_worker", "queue": "queue"}
"""First word of a role -> its section of the configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNodes:
    """The nodes of a running cluster. Producer: `r1ray.launch.ray_session.look_at`."""

    nodes: tuple[Resources, ...]  # of the nodes that are alive: all that each has, in use or not
    autoscaled: bool  # an autoscaler launched them and may launch more

    @property
    def total(self) -> dict[str, float]:
        """All nodes together."""
        names = {name for node in self.nodes for name in node}
        return {name: sum(node.get(name, 0.0) for node in self.nodes) for name in names}


def capacity_problems(
    config: Config, roles: Sequence[Role], cluster: ClusterNodes, *, resumed: bool = False
) -> Iterator[Problem]:
    """Actors that fit no node, and resources of which all actors together request more than the cluster has.

    Nothing for a cluster with an autoscaler: it launches nodes when actors request them. A resumed run (`resumed`)
    needs room for one rollout worker only: a lost node must not stop it, and the other workers start when nodes join.
    """
    if resumed:
        roles = [replace(role, count=min(role.count, 1)) if role.name.startswith("rollout") else role for role in roles]
    if cluster.autoscaled:
        return
    total, requested = cluster.total, dict[str, float]()
    for role in roles:
        needs = demand(role)
        key = f"ray.{role.name.split()[0]}_resources" if role.resources else _key(role)
        for name, amount in needs.items():
            requested[name] = requested.get(name, 0.0) + role.parts * amount
        if not any(all(node.get(name, 0.0) >= amount for name, amount in needs.items()) for node in cluster.nodes):
            message = f"no node of the cluster at {config.ray.address} has what a {role.name} requests: {_text(needs)}"
            yield problem(config, key, message, f"less, or such a node; the cluster has {_text(total)} in all")
            return
        if missing := [name for name in needs if requested[name] > total.get(name, 0.0)]:
            name = missing[0]
            message = (
                f"all actors up to the {role.count} {role.name}{'s' if role.count > 1 else ''} "
                f"request {requested[name]:g} {name}, the cluster at {config.ray.address} has {total.get(name, 0.0):g}"
            )
            yield problem(config, key, message, "fewer actors, less for each, or more nodes")
            return


def demand(role: Role) -> dict[str, float]:
    """Resources that one actor of the role requests from Ray, on each of its hosts."""
    wanted = {"CPU": role.cpus, "GPU": role.gpus, **role.resources}
    return {name: amount for name, amount in wanted.items() if amount}


def _key(role: Role) -> str:
    section = KEYS[role.name.split()[0]]
    if section == "queue":
        return "ray.address"
    return f"{section}.num_gpus" if role.gpus else f"{section}.num_cpus"


def _text(resources: Resources) -> str:
    shown = {n: a for n, a in resources.items() if not n.startswith("node:") and "memory" not in n}
    return ", ".join(f"{name} {amount:g}" for name, amount in sorted(shown.items())) or "nothing"
