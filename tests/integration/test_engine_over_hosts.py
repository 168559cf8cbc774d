"""An engine whose two processes are actors of Ray on two nodes: both serve the weights, their host stages one copy, and
everything ends with the rollout worker.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.shm_cleanup import SHARED_MEMORY, STAGED
from r1ray.config.schema import Config
from r1ray.launch.gang import GroupedHandle, engine_bundles
from r1ray.util.vllm_environment import CPU_ENVIRONMENT
from tests.integration.engine_host import EngineHost, Senders, config_for, mismatch
from tests.integration.models import random_model, write_before_and_after
from tests.integration.processes import left_after
from tests.integration.test_weight_sync_exact import GREEDY, PROMPTS, SAMPLED

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


class SpreadHost(EngineHost):
    """An engine host that tells where its engine's processes are, and what each has received."""

    def places(self) -> tuple[list[str], list[int]]:
        """Node and process id of each process."""
        pids = self._engine._engine.collective_rpc(lambda worker: os.getpid())
        return [place.node for place in self._engine._places or []], pids

    def receive(self, *arguments: Any) -> Any:
        """As EngineHost's; also which receiver of its host each process got its copy from."""
        applied, spanning = super().receive(*arguments)
        leaders = self._engine._engine.collective_rpc(
            lambda worker: worker.weight_transfer_engine.receiver._group.member.leader
        )
        return applied, spanning, leaders


@pytest.fixture(scope="module")
def second_node(ray_cluster: None) -> Iterator[None]:
    """One more node in the cluster of these tests, on this machine."""
    context = ray.get_runtime_context()
    command = [str(Path(sys.executable).with_name("ray")), "start", "--block", f"--address={context.gcs_address}"]
    command += [f"--node-ip-address={ray.util.get_node_ip_address()}", "--num-cpus=2", "--disable-usage-stats"]
    command += ["--object-store-memory=100000000", f"--temp-dir=/tmp/r1-{secrets.token_hex(3)}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until = time.monotonic() + 60
    while sum(node["Alive"] for node in ray.nodes()) < 2:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, json.dumps(ray.nodes(), default=str)
        time.sleep(0.1)
    yield
    process.terminate()
    process.communicate(timeout=30)


def spread(model: Path) -> Config:
    """Two processes, each of which needs a node of its own."""
    config = config_for(model)
    config.rollout.num_cpus = 0.5
    config.rollout.engine.tensor_parallel_size = config.rollout.engine.hosts = 2
    config.rollout.engine.extra = {
        "distributed_executor_backend": "tests.integration.cpu_ray_executor.CpuRayExecutor",
    }
    config.ray.rollout_resources = {f"node:{ray.util.get_node_ip_address()}": 1.0}  # every node has one of it
    config.sync.digest = "wire"
    return config


def test_both_nodes_receive_and_serve_the_new_policy_and_all_ends_with_the_worker(
    second_node: None, tmp_path: Path
) -> None:
    before, folder, weights = write_before_and_after(random_model(seed=0), tmp_path)
    config = spread(before)
    group = placement_group(engine_bundles(config), strategy="PACK")
    first = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
    made = ray.remote(SpreadHost).options(
        num_cpus=0.5, scheduling_strategy=first, runtime_env={"env_vars": dict(CPU_ENVIRONMENT)}
    )
    host = made.remote(config, str(before))
    handle: GroupedHandle[Any] = GroupedHandle("rollout-0", host, group)
    nodes, pids = ray.get(host.places.remote(), timeout=240)
    assert len(set(nodes)) == len(set(pids)) == 2
    processes = [psutil.Process(pid) for pid in pids]
    ray.get(host.generate.remote(PROMPTS[:1], GREEDY), timeout=60)

    others = set(SHARED_MEMORY.glob(f"{STAGED}*"))
    publisher = Senders(weights, digest="wire")
    rendezvous = publisher.open_epoch(1, 2)
    under_way = host.receive.remote(rendezvous, publisher.layout, 5, PROMPTS, SAMPLED)
    sent = publisher.send(weights)
    applied, spanning, leaders = ray.get(under_way, timeout=120)
    assert (applied.version, applied.digest) == (5, sent.digest)
    assert leaders == [1, 1]  # both nodes are on this machine, which has one copy
    assert any(len(c.version_spans) == 2 for c in spanning)
    worst = mismatch(folder, PROMPTS, spanning, version=5, temperature=0.7)
    print(f"\ntwo nodes: largest |vLLM - learner| after the change {worst:.1e}")
    assert worst < 1e-4

    handle.kill()
    assert not left_after(60.0, processes)
    assert set(SHARED_MEMORY.glob(f"{STAGED}*")) <= others
    assert ray.util.placement_group_table(group)["state"] == "REMOVED"
