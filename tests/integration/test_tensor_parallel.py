"""A rollout worker of two processes, each with half of every layer: it receives weights as one with a single process
does, and is replaced where one of them dies.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch

from actors.handle import RayHandle
from actors.rollout import RolloutWorker
from benchmarks.chaos.machines import process_title, tree
from r1ray.config.schema import Config
from r1ray.control.sync import WeightSync
from r1ray.transport.channel import Rendezvous
from r1ray.transport.transfer import Applied, Sent
from tests.integration.engine_actor import engine_actor
from tests.integration.engine_host import EngineHost, Senders, config_for, layout_of, mismatch
from tests.integration.models import random_model, write_before_and_after
from tests.integration.processes import left_after
from tests.integration.test_weight_sync_exact import GREEDY, PROMPTS, SAMPLED
from tests.unit.scripted import FakeHandle

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, torch.Tensor]]:
    """A base model, and what training made of it."""
    model = random_model(seed=0)
    return write_before_and_after(model, tmp_path_factory.mktemp("models"))


def parallel(model: Path) -> Config:
    config = config_for(model)
    config.rollout.engine.tensor_parallel_size = 2
    config.sync.digest = "wire"  # the read-back is for one shard
    return config


class WorkerHost(EngineHost):
    """One that is made a rollout worker once the test has driven its engine by hand."""

    def become_worker(self, config: Config) -> int:
        """Returns its process id."""
        services: Any = None  # without prompts it asks nobody for anything
        self._worker = RolloutWorker(
            config=config, worker_id="rollout-0", engine=self._engine, prompts=None, services=services
        )
        self._worker.start()
        return os.getpid()

    def receive_weights(self, *, group: tuple[Any, int], **arguments: Any) -> Applied:
        return self._worker.receive_weights(group=(*group, "127.0.0.1"), **arguments)


@pytest.fixture(scope="module")
def host(ray_cluster: None, trained: Any) -> Iterator[Any]:
    config = parallel(trained[0])
    made = engine_actor(WorkerHost)
    host = made.remote(config, str(trained[0]))
    # A sender waits for as long as a bucket may take, and vLLM takes longer to start.
    ray.get(host.generate.remote(PROMPTS[:1], GREEDY), timeout=200)
    yield host
    ray.kill(host)


def test_two_processes_of_a_worker_receive_and_serve_the_new_policy(host: Any, trained: Any) -> None:
    _, folder, weights = trained
    publisher = Senders(weights, digest="wire")
    rendezvous = publisher.open_epoch(1, 2)
    under_way = host.receive.remote(rendezvous, publisher.layout, 5, PROMPTS, SAMPLED)
    sent = publisher.send(weights)
    applied, spanning = ray.get(under_way, timeout=120)
    assert (applied.version, applied.digest) == (5, sent.digest)
    assert any(len(c.version_spans) == 2 for c in spanning)
    worst = mismatch(folder, PROMPTS, spanning, version=5, temperature=0.7)
    print(f"\ntwo processes: largest |vLLM - learner| after the change {worst:.1e}")
    assert worst < 1e-4


def test_a_worker_whose_engine_lost_a_process_while_idle_is_taken_out_by_the_next_sync(host: Any, trained: Any) -> None:
    """Last in this module: the engine is finished."""
    pid = ray.get(host.become_worker.remote(parallel(trained[0])), timeout=60)
    children = [p for p in tree(pid) if "Worker_TP" in process_title(p)]
    assert len(children) == 2
    children[0].kill()
    assert not left_after(60.0, children)  # vLLM ends the others, and the worker lives on
    assert psutil.pid_exists(pid)
    rendezvous = Rendezvous(transport="gloo", address="127.0.0.1", port=1, epoch=1, world_size=3, timeout_s=5.0)
    learner = FakeHandle(
        "learner-0",
        open_epoch=lambda epoch, receivers: rendezvous,
        weight_specs=lambda: layout_of(trained[2]).weights,
        weight_shares=lambda: layout_of(trained[2]).shares[0],
        publish=lambda version, group: Sent(digest="", seconds=0.0, wire_bytes=8),
    )
    sync = WeightSync(
        Config().sync,
        processes=2,
        abort=lambda rendezvous, reason: False,
        tick=lambda: None,
        stopping=lambda: False,
    )
    report = sync.publish([learner], {"rollout-0": RayHandle("rollout-0", host)}, 6)
    print(f"\na worker without a process of its engine: {report.out}")
    assert (report.synced, report.stale, set(report.out)) == ((), {}, {"rollout-0"})
    # Which of the two depends on how far vLLM has come with ending itself.
    assert report.out["rollout-0"].startswith(("RuntimeError in a weight sync", "AssertionError in a weight sync"))
