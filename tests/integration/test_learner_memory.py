"""Peak memory of log-probabilities and of a whole step, each in a process of its own with a learner's environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from r1ray.preflight.memory import LEARNER_MMAP_THRESHOLD

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

MIB = 2**20
ROOT = Path(__file__).parents[2]

HEAD = """
import json, resource, torch
from learner.model import TargetLogprobs
torch.set_num_threads(1)
T, V, H = 1024, 49_152, 64
hidden, weight = torch.randn(T, H, requires_grad=True), torch.randn(V, H, requires_grad=True)
target, none = torch.randint(V, (T,)), torch.tensor([], dtype=torch.int64)
def step(rows):
    logprob, entropy = TargetLogprobs.apply(hidden[:rows], weight, target[:rows], torch.ones(rows), False, none)
    (logprob.sum() + 0.1 * entropy.sum()).backward()
step(8)  # what the first call allocates for good
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(T)
print(json.dumps({"extra": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024}))
"""

STEP = """
import json, resource, sys
import numpy as np, torch
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
from learner.batch import pack_tokens
from learner.engine import Engine
from learner.group import init_process_group
from learner.model_folder import no_values
from r1ray.models.folder import read_shape
from r1ray.preflight.memory import learner_bytes
from r1ray.preflight.placement import LEARNER_BASE_GIB
from tests.integration.learner_support import free_port, load_policy, make_config, write_tokenizer
torch.set_num_threads(1)
folder = Path(sys.argv[1])
LlamaForCausalLM(LlamaConfig(
    hidden_size=576, intermediate_size=1536, num_hidden_layers=3, num_attention_heads=9, num_key_value_heads=3,
    vocab_size=8192, max_position_embeddings=512, tie_word_embeddings=True,
)).save_pretrained(folder)
write_tokenizer(folder, 257)
config = make_config(folder, learner__micro_batch_tokens=2048, model__max_length=512)
device = init_process_group(rank=0, world_size=1, address="127.0.0.1", port=free_port(), timeout_s=60)
policy = load_policy(config.model, folder)
engine = Engine(policy, weights=no_values, model=config.model, learner=config.learner, device=device, world_size=1)
rng = np.random.default_rng(0)
draw = lambda n: [rng.integers(0, 250, n, dtype=np.int32) for _ in range(8)]
for lengths in ((200, 56), (20, 236), (120, 136)):  # prompt, completion
    batch = pack_tokens(draw(lengths[0]), draw(lengths[1]), [1.0] * 8, device)
    engine.step([batch, batch], lambda model, b: -model(b)[0].mean(), lr=1e-5)
planned, _ = learner_bytes(config, read_shape(folder))
print(json.dumps({
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "planned": sum(planned.values()) + LEARNER_BASE_GIB * 2**30,
}))
"""


def run(program: str, *arguments: str) -> dict[str, Any]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": str(LEARNER_MMAP_THRESHOLD),
    }
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_log_probabilities_take_two_blocks_of_logits_whatever_their_number() -> None:
    """1,024 rows of 49,152 logits are 192 MiB in float32. Two blocks are 64, the weight's gradient 12, twice."""
    assert run(HEAD)["extra"] < 110 * MIB


def test_a_step_stays_within_the_plan(tmp_path: Path) -> None:
    found = run(STEP, str(tmp_path))
    assert found["peak"] < 1.15 * found["planned"]
