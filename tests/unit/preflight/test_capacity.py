"""Demand against what the nodes of a joined cluster have."""

from __future__ import annotations

import re

import pytest

from r1ray.config.load import load_config
from r1ray.config.schema import Config
from r1ray.models.folder import ModelShape
from r1ray.preflight.capacity import ClusterNodes, Resources, capacity_problems
from r1ray.preflight.placement import make_plan
from r1ray.util.machine import GIB, Machine

MACHINE = Machine(cores=2, memory_bytes=8 * GIB, shared_memory_bytes=GIB, gpu_memory_bytes=(), cpu_bfloat16=False)
SHAPE = ModelShape(
    parameters=10**6,
    layers=2,
    hidden=64,
    heads=2,
    intermediate=128,
    key_value=64,
    key_value_heads=2,
    vocabulary=300,
    context=512,
)
GPUS = ["learner.num_gpus=1", "learner.ranks=8", "rollout.num_gpus=1", "rollout.workers=2"]
HEAD = {"CPU": 8.0, "head": 1.0, "node:10.0.0.1": 1.0}
GPU_NODE = {"CPU": 32.0, "GPU": 4.0}


def problems(overrides: list[str], *nodes: Resources, autoscaled: bool = False, resumed: bool = False) -> list[str]:
    config: Config = load_config(["tiny"], ["ray.address=auto", "sync.transport=auto", *overrides]).config
    plan = make_plan(config, SHAPE, MACHINE)
    cluster = ClusterNodes(nodes=nodes, autoscaled=autoscaled)
    return [f"{p.key}: {p.message}; {p.fix}" for p in capacity_problems(config, plan.roles, cluster, resumed=resumed)]


@pytest.mark.parametrize(
    ("overrides", "nodes", "told"),
    [
        (GPUS, [HEAD], "learner.num_gpus: no node of the cluster at auto has what a learner rank requests: CPU 1, GPU 1"),
        (GPUS, [HEAD, GPU_NODE], "learner.num_gpus: all actors up to the 8 learner ranks request 8 GPU, .* has 4"),
        (GPUS, [HEAD, GPU_NODE, GPU_NODE], "rollout.num_gpus: all actors up to the 2 rollout workers request 10 GPU, .* has 8"),
        (["ray.rollout_resources={spot: 1}"], [HEAD], "ray.rollout_resources: no node .* rollout worker requests: CPU 1, spot 1"),
        (["learner.num_cpus=6"], [{"CPU": 4.0}, {"CPU": 4.0}], "learner.num_cpus: no node"),
        (["rollout.num_cpus=3"], [{"CPU": 3.0}], "rollout.num_cpus: all actors up to the 1 rollout worker request 4 CPU"),
    ],
)  # fmt: skip
def test_what_the_cluster_lacks_is_named_with_what_it_has(
    overrides: list[str], nodes: list[Resources], told: str
) -> None:
    (problem,) = problems(overrides, *nodes)
    assert re.match(told, problem), problem
    assert "node:" not in problem


def test_a_cluster_that_has_enough_is_no_problem() -> None:
    assert problems(GPUS, HEAD, GPU_NODE, GPU_NODE, GPU_NODE) == []


def test_an_autoscaler_may_launch_what_is_missing() -> None:
    assert problems(GPUS, HEAD, autoscaled=True) == []


def test_a_resumed_run_may_lack_nodes_of_rollout_workers_but_not_all_of_them() -> None:
    assert len(problems(GPUS, HEAD, GPU_NODE, GPU_NODE)) == 1
    assert problems(GPUS, HEAD, GPU_NODE, GPU_NODE, {"CPU": 1.0, "GPU": 1.0}, resumed=True) == []
    (problem,) = problems(GPUS, HEAD, GPU_NODE, GPU_NODE, resumed=True)
    assert "rollout worker" in problem
    (problem,) = problems(GPUS, HEAD, GPU_NODE, resumed=True)
    assert "learner rank" in problem
