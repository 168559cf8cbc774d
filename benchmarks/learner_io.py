"""What learner ranks read, write, send and hold when they start, train, publish, save and resume, on the CPU.

    python -m benchmarks.learner_io [--model 0.1B] [--ranks 2 4] [--stage 3] [--dtype bfloat16] [--kl 0]
        [--micro-batch-tokens 2048] [--write]

A random model of one of the sizes below is built in a temporary folder. Each rank is a process; a further one receives
the weights. A row of the table is a phase: its seconds; the largest resident memory of a rank meanwhile, file pages
included, and of the planner; MB that rank 0, and the other rank that has most, read from the disk, wrote to it and sent
over TCP; and the planner's MB of the phase. Model and checkpoint are dropped from the page cache before they are read.
Memory and bytes depend little on how busy the machine is; seconds do.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.learner_io_rank import drop_cache, rank_main
from r1ray.config.schema import Config, RewardConfig
from r1ray.models.folder import ModelShape, read_shape
from r1ray.preflight.memory import learner_bytes
from r1ray.preflight.placement import LEARNER_BASE_GIB
from r1ray.preflight.volumes import checkpoint_bytes, model_bytes

SIZES = {
    "tiny": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6, "vocab_size": 8192},
    "0.1B": {"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 12, "vocab_size": 32768},
    "0.5B": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "vocab_size": 151936},
}
DEADLINE_S = 900.0
GROUPS = 4
HEADS = (
    *("phase", "ranks", "seconds", "peak MiB", "plan MiB"),
    *("read, rank 0", "others", "written, rank 0", "others", "sent, rank 0", "others", "plan MB"),
)


def make_model(folder: Path, size: str) -> None:
    """A Qwen2 with random bfloat16 weights, tied embeddings, and a tokenizer of as many tokens."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

    heads = SIZES[size]["hidden_size"] // 64
    kv_heads = next(n for n in (2, 3, 4, 1) if heads % n == 0)
    config = Qwen2Config(
        **SIZES[size],
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).bfloat16().save_pretrained(folder)
    names = ["<|endoftext|>", *(f"w{i}" for i in range(1, SIZES[size]["vocab_size"]))]
    Qwen2Tokenizer(vocab={name: i for i, name in enumerate(names)}, merges=[]).save_pretrained(folder)


def make_config(model: Path, ranks: int, options: argparse.Namespace) -> Config:
    """A configuration for the CPU."""
    config = Config()
    config.model.path, config.model.dtype, config.model.max_length = str(model), options.dtype, 256
    config.rewards = [RewardConfig(name="accuracy")]
    config.algorithm.kl_coefficient = options.kl
    config.learner.ranks, config.learner.num_gpus, config.learner.zero_stage = ranks, 0.0, options.stage
    config.learner.groups_per_step, config.learner.micro_batch_tokens = GROUPS, options.micro_batch_tokens
    config.deadlines.collective_s = config.deadlines.actor_start_s = config.deadlines.checkpoint_s = DEADLINE_S
    config.sync.bucket_deadline_s = DEADLINE_S  # the receiver starts meanwhile
    return config


def measured(config: Config, folder: Path) -> list[dict[str, Any]]:
    """The phases of each rank."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    context, ranks = multiprocessing.get_context("spawn"), []
    for rank in range(config.learner.ranks):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=rank_main, args=(theirs, config, rank, port, str(folder)))
        process.start()
        theirs.close()
        ranks.append((ours, process))
    found, until = [], time.monotonic() + DEADLINE_S
    try:
        for rank, (pipe, _) in enumerate(ranks):
            if not pipe.poll(max(0.0, until - time.monotonic())):
                raise TimeoutError(f"rank {rank} gave no answer within {DEADLINE_S:g} s")
            found.append(json.loads(pipe.recv_bytes()))
    finally:
        for _, process in ranks:
            process.join(60 if len(found) == len(ranks) else 0)
            process.kill()
    return found


def rows_of(config: Config, shape: ModelShape, found: list[dict[str, Any]]) -> list[list[object]]:
    """The table's rows of one number of ranks."""
    ranks = config.learner.ranks
    device, host = learner_bytes(config, shape)
    planned_mib = (sum(device.values()) + sum(host.values())) / 2**20 + LEARNER_BASE_GIB * 1024
    share = checkpoint_bytes(config, shape) / ranks
    planned = {"start": model_bytes(config, shape), "sync": model_bytes(config, shape), "save": share, "resume": share}
    rows = []
    for phase in found[0]:
        of_ranks = [of_rank[phase] for of_rank in found]
        row: list[object] = [phase, ranks, f"{max(r['seconds'] for r in of_ranks):.1f}"]
        row += [round(max(r["peak_mib"] for r in of_ranks)), round(planned_mib)]
        for key in ("read_bytes", "write_bytes", "sent"):
            row += [f"{of_ranks[0][key]:.1f}", f"{max((r[key] for r in of_ranks[1:]), default=0.0):.1f}"]
        rows.append([*row, f"{planned[phase] / 1e6:.1f}" if phase in planned else "-"])
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__, repeats=1)
    parser.add_argument("--model", choices=SIZES, default="0.1B")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--stage", type=int, default=3)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--kl", type=float, default=0.0)
    parser.add_argument("--micro-batch-tokens", type=int, default=2048)
    options = parser.parse_args()
    session = measure.start("learner_io", options)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        builder = multiprocessing.get_context("spawn").Process(target=make_model, args=(model, options.model))
        builder.start()
        builder.join()
        shape = read_shape(model)
        for ranks in options.ranks:
            drop_cache(model)
            config = make_config(model, ranks, options)
            rows += rows_of(config, shape, measured(config, Path(folder) / f"{ranks}-ranks"))
    print(f"{shape.parameters / 1e6:.1f}M parameters, ZeRO {options.stage}, {options.dtype}; MB = 10^6 bytes")
    print(measure.table(HEADS, rows))
    settings = {"model": options.model, "parameters": shape.parameters, "stage": options.stage, "dtype": options.dtype}
    session.finish({**settings, "heads": HEADS, "rows": rows}, {})


if __name__ == "__main__":
    main()
