"""`r1ray doctor --cluster`: every check on every node, and transfers between all pairs of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from r1ray.config.transport import transport_of
from r1ray.control.calls import gather
from r1ray.control.node_api import NodeApi
from r1ray.control.node_checks import Probes, check_clocks, inspect_nodes, measure_pairs, nothing
from r1ray.launch.node_checks import alive, joined, probes
from r1ray.launch.ray_session import demands_token
from r1ray.models.folder import read_shape
from r1ray.preflight.capacity import ClusterNodes, capacity_problems
from r1ray.preflight.findings import Finding, error, ok, warning
from r1ray.preflight.host import token
from r1ray.preflight.memory import BYTES
from r1ray.preflight.network import PairResult, network
from r1ray.preflight.node import NodeReport, NodeRequest, inspect
from r1ray.preflight.nodes import Node, driver_request, requests
from r1ray.preflight.prepare import Preparation
from r1ray.preflight.storage import existing_folder, marker, storage
from r1ray.preflight.system import System, this_system

GPU_S = 60.0
"""Deadline of a probe that requests a GPU: on a busy node it waits for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterReport:
    """What `r1ray doctor --cluster` found."""

    findings: list[Finding]
    pairs: list[PairResult]


def examine_cluster(address: str, seen: ClusterNodes, preparation: Preparation | None) -> ClusterReport:
    """Every check of the cluster at `address`, where `look_at` has `seen` its nodes, with those of a configuration if
    one is given. Raises ConfigError if the cluster cannot be joined.
    """
    system = this_system()
    findings = [ok("cluster", f"{len(seen.nodes)} nodes at {address}"), *token(system, joins=True), _door(address)]
    with ExitStack() as stack:
        nodes = stack.enter_context(joined(address))
        there = stack.enter_context(probes(nodes))
        asked = {node.name: NodeRequest(thorough=True) for node in nodes}
        here = inspect(NodeRequest(thorough=False), system)
        if preparation is not None:
            config = preparation.loaded.config
            roles = preparation.plan().roles if preparation.model_is_built else ()
            for problem in capacity_problems(config, roles, seen):
                findings.append(error(problem.key, problem.message, meaning="no run starts", fix=problem.fix or ""))
            asked, here = _configured(preparation, nodes, system, stack, findings)
        found, answered = inspect_nodes(there, asked, here, alive=alive)
        findings += found
        reached = {name: probe for name, probe in there.items() if name in answered}
        findings += check_clocks(reached)
        pairs = _transfers(reached, [node for node in nodes if node.name in answered], preparation, findings)
    return ClusterReport(findings=findings, pairs=pairs)


def _configured(
    preparation: Preparation, nodes: Sequence[Node], system: System, stack: ExitStack, findings: list[Finding]
) -> tuple[dict[str, NodeRequest], NodeReport]:
    """The request to each node for a configuration, and the driver's own report. The marker is removed with `stack`."""
    config, built = preparation.loaded.config, preparation.model_is_built
    folder = existing_folder(Path(config.run.dir))
    mark = None
    try:
        mark = stack.enter_context(marker(folder))
    except OSError:
        findings += storage(system, folder)
    roles = preparation.plan().roles if built else ()
    ask = requests(config, preparation.use, roles, thorough=True, run_dir=str(folder), marker=mark, model=built)
    here = inspect(replace(driver_request(ask, nodes), thorough=False), system)
    return {node.name: ask(node.resources) for node in nodes}, here


def _door(address: str) -> Finding:
    refuses = demands_token(address)
    if refuses:
        return ok("token", "the cluster demands it")
    fix = "start every node with RAY_AUTH_MODE=token and the same token"
    if refuses is None:
        meaning = "whether it demands the token is not known"
        return warning("token", "the head did not answer a request without a token", meaning=meaning, fix=fix)
    meaning = "any host that reaches the head's port can run programs on every node"
    return warning("token", "the cluster answers requests without a token", meaning=meaning, fix=fix)


def _transfers(
    reached: Probes, nodes: Sequence[Node], preparation: Preparation | None, findings: list[Finding]
) -> list[PairResult]:
    """Measure all pairs over gloo, and over NCCL between nodes with GPUs."""
    if len(nodes) < 2:
        findings.append(ok("network", "one node: nothing to measure"))
        return []
    interface, size, deadline_s = None, 0.0, 0.0
    if preparation is not None:
        config = preparation.loaded.config
        interface, deadline_s = config.sync.interface, config.sync.deadline_s
        if preparation.model_is_built and preparation.use == "train":
            size = float(read_shape(Path(config.model.path)).parameters * BYTES[config.model.dtype])
    chosen = "gloo" if preparation is None else transport_of(preparation.loaded.config)
    results, untried = measure_pairs(reached, "gloo", interface=interface)
    known = {"model_bytes": size, "deadline_s": deadline_s} if chosen == "gloo" else {}
    findings += network("gloo", results, untried=untried, **known)
    gpu_nodes = [node for node in nodes if node.gpus]
    if len(gpu_nodes) > 1:
        with probes(gpu_nodes, gpus=1) as made:
            ready = _with_gpu(made, findings)
            fast, untried = measure_pairs(ready, "nccl", interface=None)
            known = {"model_bytes": size, "deadline_s": deadline_s} if chosen == "nccl" else {}
            findings += network("nccl", fast, untried=untried, **known)
            results += fast
    return results


def _with_gpu(made: Probes, findings: list[Finding]) -> Probes:
    """Those probes that got a GPU."""
    calls = {node: probe.start(NodeApi.clock) for node, probe in made.items()}
    done = gather(calls, deadline_s=GPU_S, what="a probe that requests a GPU", tick=nothing)
    for node in done.failures:
        meaning, fix = "NCCL was not tried there", "end the jobs that hold its GPUs, then repeat"
        findings.append(warning("GPUs", f"none was free within {GPU_S:g} s", meaning=meaning, fix=fix).on(node))
    return {node: probe for node, probe in made.items() if node in done.results}
