"""Mixtures of experts: an engine that received the learner's weights serves them, experts and routing included."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from learner.checkpoint_format import CheckpointFormat, persistent_buffers
from learner.publish import WeightPublisher
from r1ray.config.schema import Config
from r1ray.transport.plan import spec_of
from r1ray.types import Sampling
from r1ray.util.vllm_environment import CPU_ENVIRONMENT
from tests.integration.engine_host import EngineHost, config_for, mismatch, specs_of
from tests.integration.models import random_experts, write_model

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PROMPTS = [list(range(10, 20 + i)) for i in range(8)]
SAMPLED = Sampling(temperature=0.7, max_new_tokens=24)


@pytest.mark.parametrize("kind", ["qwen3_moe", "deepseek_v3"])
def test_after_a_sync_the_engine_serves_the_learners_mixture(kind: str, ray_cluster: None, tmp_path: Path) -> None:
    write_model(random_experts(kind, 0), tmp_path / "base")
    trained = random_experts(kind, 1)  # another routing bias too
    write_model(trained, tmp_path / "trained")
    checkpoint = CheckpointFormat(trained)
    own = [*trained.named_parameters(), *persistent_buffers(trained)]
    weights = dict(part for name, tensor in own for part in checkpoint.tensors(name, tensor.detach()))
    host = ray.remote(EngineHost).options(num_cpus=0.5, runtime_env={"env_vars": dict(CPU_ENVIRONMENT)})
    engine = host.remote(config_for(tmp_path / "base"), str(tmp_path / "base"))
    config = Config()
    config.sync.bucket_bytes, config.sync.bucket_deadline_s = 1 << 16, 30.0
    specs = [spec_of(name, tensor) for name, tensor in weights.items()]
    publisher = WeightPublisher(config.sync, transport="gloo", specs=specs, is_sender=True)
    ray.get(engine.generate.remote(PROMPTS[:1], SAMPLED), timeout=200)

    answer = engine.receive.remote(publisher.open_epoch(1, 1, "127.0.0.1"), specs_of(weights), 5, PROMPTS, SAMPLED)
    sent = publisher.send(weights.items())
    applied, _ = ray.get(answer, timeout=60)  # reads back every weight, since sync.digest is full
    assert (applied.version, applied.digest) == (5, sent.digest)
    sampled = ray.get(engine.generate.remote(PROMPTS, SAMPLED), timeout=60)
    worst = mismatch(tmp_path / "trained", PROMPTS, sampled, version=5, temperature=0.7)
    other = mismatch(tmp_path / "base", PROMPTS, sampled, version=5, temperature=0.7)
    print(f"\n{kind}: largest |vLLM - transformers| {worst:.1e} after the sync, {other:.1e} to the old policy")
    assert worst < 1e-4 < other
    ray.kill(engine)
