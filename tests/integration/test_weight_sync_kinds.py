"""Kinds of models, and engines of two processes: whole weights of one sender, parts of two and differences arrive to
the bit, and the engine then answers as one that loaded the export.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from transformers import PreTrainedModel

from learner.checkpoint_format import CheckpointFormat, persistent_buffers
from r1ray.config.schema import Config
from r1ray.transport.transfer import Sent
from r1ray.types import Sampling
from tests.integration.engine_actor import engine_actor
from tests.integration.engine_host import Senders, config_for, mismatch
from tests.integration.models import random_experts, random_llama, random_model, write_model

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PROMPTS = [list(range(10, 20 + i)) for i in range(8)]
GREEDY = Sampling(temperature=0.0, max_new_tokens=24)
SAMPLED = Sampling(temperature=0.7, max_new_tokens=24)
MAKE: dict[str, Callable[[int], PreTrainedModel]] = {
    "qwen2": random_model,
    "llama": random_llama,
    "qwen3_moe": partial(random_experts, "qwen3_moe"),
    "deepseek_v3": partial(random_experts, "deepseek_v3"),
}


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    """What a learner sends, by the names of the checkpoint."""
    checkpoint = CheckpointFormat(model)
    own = [*model.named_parameters(), *persistent_buffers(model)]
    return dict(part for name, tensor in own for part in checkpoint.tensors(name, tensor.detach().clone()))


def tokens(completions: list[Any]) -> list[list[int]]:
    return [c.token_ids.tolist() for c in completions]


@pytest.mark.parametrize("kind", ["qwen2", "llama", "qwen3_moe", "deepseek_v3"])
def test_every_encoding_makes_the_engine_of_the_export(kind: str, ray_cluster: None, tmp_path: Path) -> None:
    models = [MAKE[kind](seed) for seed in (0, 1)]
    base, trained = (write_model(m, tmp_path / name) for m, name in zip(models, ("base", "trained"), strict=True))
    host = engine_actor()
    engines, configs = {}, {}
    for processes in (1, 2):
        configs[processes] = config = config_for(base)
        config.rollout.engine.tensor_parallel_size = processes
        config.sync.digest = "full" if processes == 1 else "wire"  # the read-back is for one shard
        engines[processes] = host.remote(config, str(base))
    exported = host.remote(config_for(trained), str(trained))
    started = [h.generate.remote(PROMPTS, GREEDY) for h in (exported, *engines.values())]
    expected, *before = map(tokens, ray.get(started, timeout=300))
    ray.kill(exported)
    assert expected not in before
    for processes, engine in engines.items():
        print(f"\n{kind}, {processes} processes:")
        send_in_every_way(engine, configs[processes], weights_of(models[1]), trained, expected)
        ray.kill(engine)


def send_in_every_way(
    engine: Any, config: Config, weights: dict[str, torch.Tensor], trained: Path, expected: list[list[int]]
) -> None:
    """The engine's greedy responses are `expected` after each way of sending the weights of the model in `trained`."""
    processes = config.rollout.engine.tensor_parallel_size
    near = {name: torch.where(torch.rand(t.shape) < 0.02, t * 1.5, t) for name, t in weights.items()}
    sent: list[Sent] = []
    ways = ((1, "full", [weights]), (2, "full", [near, weights]), (2, "delta", [near, weights]))
    for epoch, (senders, encoding, steps) in enumerate(ways, start=1):
        ray.get(engine.receive_differences.remote(encoding == "delta"), timeout=60)
        publisher = Senders(weights, senders, encoding=encoding, digest=config.sync.digest)
        first = 10 * epoch
        for version, tensors in enumerate(steps, start=first):
            rendezvous = publisher.open_epoch(epoch, processes) if version == first else None
            under_way = engine.receive.remote(rendezvous, publisher.layout, version, PROMPTS, SAMPLED)
            sent.append(publisher.send(tensors))
            applied, spanning = ray.get(under_way, timeout=120)
            assert (applied.version, applied.digest) == (version, sent[-1].digest)
        after = ray.get(engine.generate.remote(PROMPTS, GREEDY), timeout=120)
        assert tokens(after) == expected, (senders, encoding)
        worst = mismatch(trained, PROMPTS, spanning, version=version, temperature=0.7)
        print(f"{senders} senders, {encoding}: |vLLM - transformers| {worst:.1e}")
        assert worst < 1e-4
    assert sent[-1].wire_bytes < 0.05 * sum(t.nbytes for t in weights.values())
