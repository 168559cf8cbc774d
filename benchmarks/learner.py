"""A training step of the learner against a bare torch loop on the same packed micro-batches, and on padded ones.

    python -m benchmarks.learner [--sizes 1M 5M] [--write]          (make bench-learner)

    system   PolicyRank.train_step: plan, fetch, decode, pack, forward, objective, backward, AdamW, metrics
    bare     transformers' own layers, whole logits, a clipped loss and AdamW, on micro-batches packed beforehand
    padded   the same loop on rectangles: a row per completion, its prompt in front, attention by torch

Seconds are processor time of the one thread: on an idle machine they are the wall clock's. `system / bare` is what
planning, checking, DeepSpeed and metrics cost. The share of the peak is the floating-point operations of the model
(6 per weight and token, attention and recomputation not counted) over those of a large matrix product.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import measure
from benchmarks.groups import make_completion, make_group, make_manifest, make_prompt
from benchmarks.learner_loops import bare_loop, padded_loop
from learner.batch import MicroBatch
from learner.policy import PolicyRank
from r1ray.codec import pack_scored
from r1ray.config.schema import Config, RewardConfig
from r1ray.preflight.memory import LEARNER_MMAP_THRESHOLD
from r1ray.types import Score, ScoredGroup
from r1ray.util.network import LOOPBACK

SIZES: dict[str, tuple[int, int, int, int]] = {
    "1M": (128, 5, 400, 16),
    "5M": (256, 6, 1024, 16),
    "20M": (512, 6, 4096, 8),
    "100M": (768, 12, 16384, 2),
}
"""Hidden size, layers, vocabulary, groups of a step; a feed-forward layer is three times the hidden size."""

GROUP_SIZE, PROMPT = 8, (40, 80)
LONGEST = 128
"""Completions are log-normal of about 50 tokens, at most this many: rectangles are padded for the longest of theirs."""
MICRO_BATCH_TOKENS = 2048


def make_model(folder: Path, size: str) -> None:
    """A Llama of that size with random weights, and a tokenizer of as many tokens."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    hidden, layers, vocabulary, _ = SIZES[size]
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 64,
        vocab_size=vocabulary,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocabulary)}, unk_token="w0"))  # noqa: S106
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)


def make_config(folder: Path, groups: int) -> Config:
    """One rank on the CPU, float32, GRPO on-policy, one optimiser step."""
    config = Config()
    config.model.path, config.model.dtype, config.model.max_length = str(folder), "float32", 256
    config.rewards = [RewardConfig(name="accuracy")]
    config.rollout.group_size, config.rollout.max_new_tokens = GROUP_SIZE, LONGEST
    config.learner.num_gpus, config.learner.zero_stage = 0.0, 0
    config.learner.groups_per_step, config.learner.micro_batch_tokens = groups, MICRO_BATCH_TOKENS
    config.run.steps = 10**6
    return config


def make_groups(groups: int, vocabulary: int) -> list[ScoredGroup]:
    """Random groups in which every completion has an advantage."""
    rng = np.random.default_rng(0)

    def draw(length: int) -> Any:
        return rng.integers(0, vocabulary, length, dtype=np.int32)

    made = []
    for g in range(groups):
        completions = []
        for _ in range(GROUP_SIZE):
            n = int(np.clip(rng.lognormal(3.8, 0.5), 4, LONGEST))
            completions.append(make_completion(draw(n), logprobs=rng.normal(-np.log(vocabulary), 0.1, n)))
        prompt = make_prompt(g, token_ids=draw(int(rng.integers(*PROMPT))), answer=0, task="random", messages=())
        scores = tuple(Score(reward=float(r), parts={"accuracy": float(r)}) for r in rng.permutation(GROUP_SIZE))
        made.append(ScoredGroup(rollout=make_group(f"{g}-0", prompt, completions), scores=scores))
    return made


class Recorder(PolicyRank):
    """A rank that remembers the micro-batches of its last step."""

    packed: list[MicroBatch]

    def _pack(self, *args: Any, **kwargs: Any) -> list[list[MicroBatch]]:
        minibatches = super()._pack(*args, **kwargs)
        self.packed = [batch for minibatch in minibatches for batch in minibatch]
        return minibatches


def processor_seconds(function: Callable[[], Any]) -> float:
    """Of one call, in this process."""
    began = time.process_time()
    function()
    return time.process_time() - began


def peak() -> float:
    """Floating-point operations per second of a matrix product of 2048 x 1024 x 1024."""
    a, b = torch.randn(2048, 1024), torch.randn(1024, 1024)
    out = torch.empty(2048, 1024)
    seconds = processor_seconds(lambda: [torch.mm(a, b, out=out) for _ in range(8)])
    return 8.0 * 2 * 2048 * 1024 * 1024 / seconds


def operations(model: Any, batches: list[MicroBatch]) -> float:
    """Of the matrix products of a step on packed micro-batches: 6 per weight and row; the head has its own rows."""
    head: int = model.get_output_embeddings().weight.numel()
    layers: int = sum(p.numel() for p in model.parameters()) - head
    rows = sum(len(batch.tokens.input_ids_R) for batch in batches)
    wanted = sum(len(batch.tokens.target_M) for batch in batches)
    return 6.0 * (layers * rows + head * wanted)


def attention_padding(batches: list[MicroBatch]) -> float:
    """Share of padding in the blocks of attention; rows of everything else have none."""
    blocks = [index_BL for batch in batches for index_BL in batch.tokens.layout.blocks]
    repeated = sum(int((index_BL[:, 1:] == index_BL[:, :-1]).sum()) for index_BL in blocks)
    return repeated / sum(int(index_BL.numel()) for index_BL in blocks)


def measure_size(size: str, repeats: int) -> dict[str, measure.Summary | float]:
    """All variants of one size of model."""
    _, _, vocabulary, count = SIZES[size]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_model(folder, size)
        groups = make_groups(count, vocabulary)
        payloads = {g.rollout.group_id: pack_scored(g) for g in groups}
        learner = Recorder(config=make_config(folder, count), rank=0, fetch=lambda ids: [payloads[i] for i in ids])
        if torch.distributed.is_initialized():
            learner.build(torch.device("cpu"))
        else:
            learner.setup(LOOPBACK, learner.listen(LOOPBACK))
        learner.train_step(make_manifest(0, groups))
        bare, padded = bare_loop(folder, learner.packed), padded_loop(folder, groups, MICRO_BATCH_TOKENS)
    variants = {
        "system": lambda: processor_seconds(lambda: learner.train_step(make_manifest(learner.policy_version, groups))),
        "bare": lambda: processor_seconds(bare),
        "padded": lambda: processor_seconds(padded),
        "peak": peak,
    }
    measured = measure.interleaved(variants, repeats)
    done = operations(learner._engine.module.hf, learner.packed)
    return {
        "system_s": measure.summarise(measured["system"]),
        "bare_s": measure.summarise(measured["bare"]),
        "system / bare": measure.ratio(measured["system"], measured["bare"]),
        "padded / system": measure.ratio(measured["padded"], measured["system"]),
        "share of peak": measure.summarise(
            [done / s / p for s, p in zip(measured["system"], measured["peak"], strict=True)]
        ),
        "peak_gflops": measure.summarise([p / 1e9 for p in measured["peak"]]),
        "attention padding": attention_padding(learner.packed),
    }


def main() -> None:
    """Parse the command line, measure, print a table, and store the result if requested."""
    parser = measure.parser(__doc__, repeats=5)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    arguments = parser.parse_args()
    in_environment_of_a_rank()
    session = measure.start("learner", arguments)
    torch.set_num_threads(1)
    rows = {}
    for size in arguments.sizes:
        rows[size] = measure_size(size, session.repeats)
        print(f"{size}: system / bare {rows[size]['system / bare']}", flush=True)
    columns = ["system / bare", "padded / system", "share of peak", "system_s", "peak_gflops", "attention padding"]
    print(measure.table(["parameters", *columns], [[size, *(row[c] for c in columns)] for size, row in rows.items()]))
    claims = {f"system / bare {size}": row["system / bare"] for size, row in rows.items()}
    result = {
        "sizes": {
            size: {k: v.to_json() if isinstance(v, measure.Summary) else round(v, 4) for k, v in row.items()}
            for size, row in rows.items()
        }
    }
    session.finish(result, {k: v for k, v in claims.items() if isinstance(v, measure.Summary)})


def in_environment_of_a_rank(program: str = "benchmarks.learner") -> None:
    """Start this `program` again with the environment of a learner rank, which libraries read at their start."""
    wanted = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(LEARNER_MMAP_THRESHOLD)}
    if all(os.environ.get(key) == value for key, value in wanted.items()):
        return
    command = [sys.executable, "-m", program, *sys.argv[1:]]
    os.execve(sys.executable, command, {**os.environ, **wanted})  # noqa: S606  no shell is wanted


if __name__ == "__main__":
    main()
