"""A model whose output layer has more rows than its tokenizer has tokens: real vLLM against the learner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from learner.batch import pack_tokens
from r1ray.types import Sampling
from tests.integration.engine_actor import engine_actor
from tests.integration.engine_host import config_for
from tests.integration.learner_support import load_policy
from tests.integration.models import VOCABULARY, random_model, write_model

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

PADDING = 60
PROMPTS = [list(range(10, 20 + i)) for i in range(16)]
SAMPLED = Sampling(temperature=1.3, max_new_tokens=48)
GREEDY = Sampling(temperature=0.0, max_new_tokens=48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows of padding are larger than the others, so that unmasked they would be sampled often."""
    folder = tmp_path_factory.mktemp("padded")
    model = random_model(seed=3, vocab_size=VOCABULARY + PADDING)
    with torch.no_grad():
        model.get_output_embeddings().weight[VOCABULARY:] *= 2.0
    write_model(model, folder)
    return folder


@pytest.fixture(scope="module")
def host(ray_cluster: None, folder: Path) -> Iterator[Any]:
    host = engine_actor()
    started = host.remote(config_for(folder), str(folder))
    yield started
    ray.kill(started)


@pytest.mark.parametrize("sampling", [SAMPLED, GREEDY], ids=["sampled", "greedy"])
def test_no_padded_id_is_sampled_and_the_learner_agrees(host: Any, folder: Path, sampling: Sampling) -> None:
    completions = ray.get(host.generate.remote(PROMPTS, sampling), timeout=200)
    sampled = np.concatenate([c.token_ids for c in completions])
    assert len(sampled) > 100
    assert sampled.max() < VOCABULARY

    policy = load_policy(config_for(folder).model, folder)
    temperatures = [sampling.temperature or 1.0] * len(PROMPTS)
    prompts = [np.array(p, dtype=np.int32) for p in PROMPTS]
    tokens = pack_tokens(prompts, [c.token_ids for c in completions], temperatures, torch.device("cpu"))
    with torch.no_grad():
        logprob_T, _ = policy(tokens)
    behavior_T = np.concatenate([c.behavior_logprobs for c in completions])
    assert float(np.abs(logprob_T.numpy() - behavior_T).max()) < 1e-4


def test_without_the_mask_padded_ids_would_be_likely(folder: Path) -> None:
    """Otherwise the test above would show nothing."""
    from transformers import AutoModelForCausalLM

    hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        p = hf(torch.tensor([PROMPTS[-1]])).logits[0].softmax(-1)
    assert float(p[:, VOCABULARY:].sum(-1).mean()) > 0.1
