"""An engine whose two processes are actors of Ray on two nodes: both receive the weights, each node stages one copy, and
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

from actors.shm_cleanup import SHARED_MEMORY
from learner.publish import WeightPublisher
from r1ray.config.schema import Config
from r1ray.launch.gang import GroupedHandle, engine_bundles
from r1ray.transport.plan import spec_of
from r1ray.util.vllm_environment import CPU_ENVIRONMENT
from tests.integration.engine_host import EngineHost, config_for, mismatch, specs_of
from tests.integration.models import random_model, write_before_and_after
from tests.integration.processes import left_after
from tests.integration.test_weight_sync_exact import GREEDY, PROMPTS, SAMPLED

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


class SpreadHost(EngineHost):
    """An engine host that tells where its engine's processes and staged weights are."""

    def places(self) -> tuple[list[str], list[int], str]:
        """Node and process id of each process, and how the names of their staged files begin."""
        pids = self._engine._engine.collective_rpc(lambda worker: os.getpid())
        return [place.node for place in self._engine._places or []], pids, self._engine._staged

    def receive(self, *arguments: Any) -> Any:
        """As EngineHost's; also the names of the staged files at the moment before the weights are applied."""
        apply, staged = self._engine.try_apply, []

        def look(version: int) -> Any:
            staged[:] = sorted(path.name for path in SHARED_MEMORY.glob(f"{self._engine._staged}*"))
            return apply(version)

        self._engine.try_apply = look  # type: ignore[method-assign]
        return (*super().receive(*arguments), staged)


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
    nodes, pids, staged_as = ray.get(host.places.remote(), timeout=240)
    assert len(set(nodes)) == len(set(pids)) == 2
    processes = [psutil.Process(pid) for pid in pids]
    ray.get(host.generate.remote(PROMPTS[:1], GREEDY), timeout=60)

    sync = Config().sync
    sync.bucket_bytes, sync.digest = 1 << 16, "wire"
    specs = [spec_of(name, tensor) for name, tensor in weights.items()]
    publisher = WeightPublisher(sync, transport="gloo", specs=specs, is_sender=True)
    rendezvous = publisher.open_epoch(1, 2, "127.0.0.1")
    under_way = host.receive.remote(rendezvous, specs_of(weights), 5, PROMPTS, SAMPLED)
    sent = publisher.send(weights.items())
    applied, spanning, staged = ray.get(under_way, timeout=120)
    assert (applied.version, applied.digest) == (5, sent.digest)
    assert [name.rpartition("-")[2] for name in staged] == ["0", "1"]  # one copy for each node
    assert any(len(c.version_spans) == 2 for c in spanning)
    worst = mismatch(folder, PROMPTS, spanning, version=5, temperature=0.7)
    print(f"\ntwo nodes: largest |vLLM - learner| after the change {worst:.1e}")
    assert worst < 1e-4

    handle.kill()
    assert not left_after(60.0, processes)
    assert not list(SHARED_MEMORY.glob(f"{staged_as}*"))
    assert ray.util.placement_group_table(group)["state"] == "REMOVED"
