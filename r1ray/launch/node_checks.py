"""Checks on every node of a joined cluster, by one probe actor per node, before the actors of a run are created.

A probe requests no CPU and, but for NCCL, no GPU, so that it finds room on a busy node. All are gone at the end.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.handle import RayHandle
from actors.probe import NodeProbe
from r1ray.config.schema import Config
from r1ray.config.uses import Use
from r1ray.control.handles import Handle
from r1ray.control.node_api import NodeApi
from r1ray.control.node_checks import inspect_nodes
from r1ray.launch.ray_session import connect, disconnect
from r1ray.preflight.node import inspect
from r1ray.preflight.nodes import Node, driver_request, refuse_nodes, requests
from r1ray.preflight.roles import Role
from r1ray.preflight.storage import existing_folder, marker
from r1ray.preflight.system import this_system
from r1ray.telemetry.logs import LogTarget
from r1ray.util.imports import IMPORT_PATH, import_folders

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def check_nodes(config: Config, use: Use, roles: Sequence[Role], *, model: bool) -> None:
    """Refuse a cluster with a node on which an actor of the run would fail.

    Raises ConfigError with every problem. A node that does not answer is a warning here: Ray may be about to drop it,
    and its actors have deadlines of their own. `model` false: the embedded model is not built yet.
    """
    address = config.ray.address
    assert address is not None, "only a joined cluster has nodes before the run starts"
    folder = existing_folder(Path(config.run.dir))
    with joined(address) as nodes, probes(nodes) as there, marker(folder) as mark:
        ask = requests(config, use, roles, thorough=False, run_dir=str(folder), marker=mark, model=model)
        here = inspect(driver_request(ask, nodes), this_system())
        asked = {node.name: ask(node.resources) for node in nodes}
        findings, _ = inspect_nodes(there, asked, here, alive=alive, silent="warning")
    refuse_nodes(address, findings)
    for finding in findings:
        if finding.verdict == "warning":
            print(f"warning: {finding.line()}", file=sys.stderr, flush=True)


@contextmanager
def joined(address: str) -> Iterator[list[Node]]:
    """The nodes of the cluster at `address`, joined for as long as the context lasts. Raises as `connect`."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    with tempfile.TemporaryDirectory(prefix="r1ray-ray-") as scratch:
        try:
            connect(address, LogTarget(path=Path(scratch) / "ray.log", run_id="", actor="ray", as_json=False))
            yield nodes_of(ray.nodes())
        finally:
            disconnect()
            for number, handler in before.items():  # Ray's C++ part puts handlers of its own around them
                signal.signal(number, handler)


def nodes_of(listed: Sequence[dict[str, object]]) -> list[Node]:
    """The living nodes in what `ray.nodes()` returns, by name: the address, or address/id if several share it."""
    living = [entry for entry in listed if entry["Alive"]]
    shared = Counter(str(entry["NodeManagerAddress"]) for entry in living)
    found = []
    for entry in living:
        address, node_id, resources = str(entry["NodeManagerAddress"]), str(entry["NodeID"]), entry["Resources"]
        assert isinstance(resources, dict)
        name = address if shared[address] == 1 else f"{address}/{node_id[:6]}"
        found.append(Node(node_id=node_id, name=name, address=address, resources=resources))
    return sorted(found, key=lambda node: node.name)


def alive() -> set[str]:
    """Names of the nodes that Ray counts among the living now."""
    return {node.name for node in nodes_of(ray.nodes())}


@contextmanager
def probes(nodes: Sequence[Node], *, gpus: int = 0) -> Iterator[dict[str, Handle[NodeApi]]]:
    """A probe on each node, with `gpus` GPUs of its own; all end with the context."""
    variables = {"OMP_NUM_THREADS": "1", IMPORT_PATH: os.pathsep.join(import_folders())}
    made: dict[str, Handle[NodeApi]] = {}
    try:
        for node in nodes:
            actor = ray.remote(NodeProbe).options(
                num_cpus=0,
                num_gpus=gpus,
                max_restarts=0,
                runtime_env={"env_vars": variables},
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False),
            )
            probe: Handle[NodeProbe] = RayHandle(f"the probe on {node.name}", actor.remote(node.address))
            made[node.name] = probe
        yield made
    finally:
        for handle in made.values():
            handle.kill()
