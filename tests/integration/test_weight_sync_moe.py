"""Mixtures of experts: an engine that received the learner's weights serves them, experts and routing included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from learner.assemble import versions_of
from learner.batch import Sequence, make_micro_batch
from learner.checkpoint_format import CheckpointFormat, persistent_buffers
from learner.metrics import MetricSums
from learner.routing import ROUTING, Routing
from r1ray.types import Sampling
from tests.block_fp8 import write_block_fp8
from tests.integration.engine_actor import engine_actor
from tests.integration.engine_host import Senders, config_for, mismatch
from tests.integration.learner_support import load_policy, make_config
from tests.integration.models import random_experts, write_model

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PROMPTS = [list(range(10, 20 + i)) for i in range(8)]
SAMPLED = Sampling(temperature=0.7, max_new_tokens=24)


def routing_mismatch(policy: Path, completions: list[Any], version: int) -> float:
    """The metric of the learner that holds the model in `policy`, as policy `version`."""
    config = make_config(policy)
    module = load_policy(config.model, policy)
    module.routing = Routing(module.hf, replay=False)
    sequences = [
        Sequence(
            prompt=np.array(prompt, dtype=np.int32),
            completion=c.token_ids,
            temperature=SAMPLED.temperature,
            behavior_logprobs=c.behavior_logprobs,
            versions=versions_of(c),
            advantage=1.0,
            trained=True,
            experts=c.experts,
        )
        for prompt, c in zip(PROMPTS, completions, strict=True)
    ]
    batch = make_micro_batch(sequences, torch.device("cpu"))
    with torch.no_grad():
        module(batch.tokens)
    sums = MetricSums(means=[ROUTING], maxima=[], device=torch.device("cpu"))
    module.routing.compare(batch, version, sums)
    return sums.reduce(lambda values, _: values)[0][ROUTING]


@pytest.mark.parametrize(("kind", "senders"), [("qwen3_moe", 2), ("deepseek_v3", 1)])
def test_after_a_sync_the_engine_serves_the_learners_mixture(
    kind: str, senders: int, ray_cluster: None, tmp_path: Path
) -> None:
    start = write_model(random_experts(kind, 0), tmp_path / "base")
    if kind == "deepseek_v3":  # as it is published: the engine is built without quantization, before it gets weights
        start = tmp_path / "base-fp8"
        write_block_fp8(tmp_path / "base", start)
    trained = random_experts(kind, 1)  # another routing bias too
    write_model(trained, tmp_path / "trained")
    checkpoint = CheckpointFormat(trained)
    own = [*trained.named_parameters(), *persistent_buffers(trained)]
    weights = dict(part for name, tensor in own for part in checkpoint.tensors(name, tensor.detach()))
    host = engine_actor()
    settings = config_for(start)
    settings.algorithm.routing = "replay"
    engine = host.remote(settings, str(start), synced=True)
    publisher = Senders(weights, senders)
    ray.get(engine.generate.remote(PROMPTS[:1], SAMPLED), timeout=200)

    answer = engine.receive.remote(publisher.open_epoch(1, 1), publisher.layout, 5, PROMPTS, SAMPLED)
    sent = publisher.send(weights)
    applied, crossing = ray.get(answer, timeout=60)  # reads back every weight, since sync.digest is full
    assert (applied.version, applied.digest) == (5, sent.digest)
    sampled = ray.get(engine.generate.remote(PROMPTS, SAMPLED), timeout=60)
    worst = mismatch(tmp_path / "trained", PROMPTS, sampled, version=5, temperature=0.7)
    other = mismatch(tmp_path / "base", PROMPTS, sampled, version=5, temperature=0.7)
    print(f"\n{kind}: largest |vLLM - transformers| {worst:.1e} after the sync, {other:.1e} to the old policy")
    assert worst < 1e-4 < other
    layers = trained.config.num_hidden_layers
    assert all(c.experts.ids.shape == (len(c.token_ids), layers, 2) for c in [*sampled, *crossing])
    for completions in (sampled, crossing):  # those under way were computed again under the new policy
        assert routing_mismatch(tmp_path / "trained", completions, 5) == 0
    assert routing_mismatch(tmp_path / "base", sampled, 5) > 0.1
    if start == tmp_path / "base":  # an engine that is built without weights samples from none before the sync
        assert routing_mismatch(start, crossing, 0) == 0
    ray.kill(engine)
