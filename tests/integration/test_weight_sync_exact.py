"""After a sync the engine serves exactly the learner's weights, also for requests that were under way.

Real vLLM in two processes: one receives weights over gloo while it generates, the other loads the exported checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from learner.publish import WeightPublisher
from r1ray.config.schema import Config
from r1ray.errors import ServedWeightsDiffer, WeightSyncError
from r1ray.transport.plan import spec_of
from r1ray.transport.rendezvous import listen
from r1ray.types import Sampling
from r1ray.util.vllm_environment import CPU_ENVIRONMENT
from tests.integration.engine_host import EngineHost, config_for, mismatch, specs_of
from tests.integration.models import VOCABULARY, random_model, write_model

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

PROMPTS = [list(range(10, 20 + i)) for i in range(16)]
GREEDY = Sampling(temperature=0.0, max_new_tokens=24)
SAMPLED = Sampling(temperature=0.7, max_new_tokens=24)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, torch.Tensor]]:
    """A base model, and the checkpoint exported after training changed every weight."""
    base, trained = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("trained")
    model = random_model(seed=0, vocab_size=VOCABULARY + 60)  # padded: the mask must survive a sync
    write_model(model, base)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    write_model(model, trained)
    return base, trained, dict(model.named_parameters())


@pytest.fixture(scope="module")
def hosts(ray_cluster: None, folders: Any) -> Iterator[tuple[Any, Any]]:
    base, trained, _ = folders
    host = ray.remote(EngineHost).options(num_cpus=0.5, runtime_env={"env_vars": dict(CPU_ENVIRONMENT)})
    started = [host.remote(config_for(p), str(p)) for p in (base, trained)]
    ray.get([h.generate.remote(PROMPTS[:1], GREEDY) for h in started], timeout=200)
    yield started[0], started[1]
    for h in started:
        ray.kill(h)


@pytest.fixture(scope="module")
def publisher(folders: Any) -> WeightPublisher:
    config = Config()
    config.sync.bucket_bytes, config.sync.bucket_deadline_s = 1 << 16, 30.0
    return WeightPublisher(
        config.sync, transport="gloo", specs=[spec_of(n, t) for n, t in folders[2].items()], is_sender=True
    )


def tokens(completions: list[Any]) -> list[list[int]]:
    return [c.token_ids.tolist() for c in completions]


def test_after_a_sync_in_flight_the_engine_is_the_exported_checkpoint(hosts: Any, folders: Any, publisher: Any) -> None:
    received, loaded = hosts
    weights = folders[2]
    before = ray.get(received.generate.remote(PROMPTS, GREEDY), timeout=60)
    rendezvous = publisher.open_epoch(1, 1, "127.0.0.1")
    under_way = received.receive.remote(rendezvous, specs_of(weights), 5, PROMPTS, SAMPLED)
    sent = publisher.send(weights.items())
    applied, spanning = ray.get(under_way, timeout=60)
    assert (applied.version, applied.digest) == (5, sent.digest)

    after, expected = ray.get([h.generate.remote(PROMPTS, GREEDY) for h in (received, loaded)], timeout=60)
    assert tokens(after) == tokens(expected)
    assert tokens(after) != tokens(before)
    difference = max(
        np.abs(a.behavior_logprobs - e.behavior_logprobs).max() for a, e in zip(after, expected, strict=True)
    )
    print(f"\ngreedy: 16/16 identical, largest log-probability difference {difference:.1e}")
    assert difference < 1e-4
    assert all(c.token_ids.max() < VOCABULARY for c in [*after, *spanning])
    assert {s.version for c in after for s in c.version_spans} == {5}

    # Tokens sampled after the change come from the new policy, keys and values recomputed: check against the learner.
    assert any(len(c.version_spans) == 2 for c in spanning)
    worst = mismatch(folders[1], PROMPTS, spanning, version=5, temperature=0.7)
    print(f"in flight: largest |vLLM - learner| after the change {worst:.1e}")
    assert worst < 1e-4


def test_a_sender_that_dies_leaves_the_old_policy_serving(hosts: Any, folders: Any, publisher: Any) -> None:
    received, loaded = hosts
    listener = listen("gloo", address="127.0.0.1", epoch=2, world_size=2, timeout_s=2.0)
    rendezvous = listener.rendezvous
    del listener
    with pytest.raises(WeightSyncError, match="the engine continues with policy 5"):
        ray.get(received.receive.remote(rendezvous, specs_of(folders[2]), 6, PROMPTS, SAMPLED), timeout=60)
    ray.get(received._drain.remote(), timeout=60)
    after, expected = ray.get([h.generate.remote(PROMPTS, GREEDY) for h in (received, loaded)], timeout=60)
    assert tokens(after) == tokens(expected)

    rendezvous = publisher.open_epoch(3, 1, "127.0.0.1")
    answer = received.receive.remote(rendezvous, specs_of(folders[2]), 7, PROMPTS, SAMPLED)
    publisher.send(folders[2].items())
    assert ray.get(answer, timeout=60)[0].version == 7


def test_weights_that_load_wrong_are_found_by_reading_back(hosts: Any, folders: Any, publisher: Any) -> None:
    """Last in this module: the engine is spoilt afterwards."""
    received, _ = hosts
    ray.get(received.corrupt_after_loading.remote(), timeout=60)
    rendezvous = publisher.open_epoch(4, 1, "127.0.0.1")
    answer = received.receive.remote(rendezvous, specs_of(folders[2]), 8, PROMPTS, SAMPLED)
    publisher.send(folders[2].items())
    with pytest.raises(ServedWeightsDiffer, match=r"mlp.down_proj"):
        ray.get(answer, timeout=60)
