"""A rollout worker of two processes, each with half of every layer, receives weights as one with a single process does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from actors.engine import CPU_ENVIRONMENT
from learner.publish import WeightPublisher
from r1ray.config.schema import Config
from r1ray.transport.plan import spec_of
from tests.integration.models import random_model, write_model
from tests.integration.test_weight_sync_exact import PROMPTS, SAMPLED, EngineHost, config_for, mismatch, specs_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, torch.Tensor]]:
    """A base model, and what training made of it."""
    base, trained = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("trained")
    model = random_model(seed=0)
    write_model(model, base)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    write_model(model, trained)
    return base, trained, dict(model.named_parameters())


@pytest.fixture(scope="module")
def host(ray_cluster: None, trained: Any) -> Iterator[Any]:
    config = config_for(trained[0])
    config.rollout.engine.tensor_parallel_size = 2
    config.sync.digest = "wire"  # the read-back is for one shard
    made = ray.remote(EngineHost).options(num_cpus=0.5, runtime_env={"env_vars": dict(CPU_ENVIRONMENT)})
    host = made.remote(config, str(trained[0]))
    yield host
    ray.kill(host)


def test_two_processes_of_a_worker_receive_and_serve_the_new_policy(host: Any, trained: Any) -> None:
    _, folder, weights = trained
    sync = Config().sync
    sync.bucket_bytes, sync.digest = 1 << 16, "wire"
    specs = [spec_of(n, t) for n, t in weights.items()]
    publisher = WeightPublisher(sync, transport="gloo", specs=specs, is_sender=True)
    rendezvous = publisher.open_epoch(1, 2, "127.0.0.1")
    under_way = host.receive.remote(rendezvous, specs_of(weights), 5, PROMPTS, SAMPLED)
    sent = publisher.send(weights.items())
    applied, spanning = ray.get(under_way, timeout=120)
    assert (applied.version, applied.digest) == (5, sent.digest)
    assert any(len(c.version_spans) == 2 for c in spanning)
    worst = mismatch(weights, folder, spanning, version=5)
    print(f"\ntwo processes: largest |vLLM - learner| after the change {worst:.1e}")
    assert worst < 1e-4
