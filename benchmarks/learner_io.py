"""What learner ranks read, write and hold when they start, save a checkpoint and load it, on the CPU.

    python -m benchmarks.learner_io --model MODEL --folder FOLDER [--ranks 2] [--stage 3] [--dtype float32] [--kl 0.1]

A MODEL of the sizes below is built in FOLDER first, with random weights. Each rank is a process. Columns: seconds; MB
that system calls read and wrote (`rchar` and `wchar` of /proc, page cache included); MB that came from the disk; the
largest resident memory during the phase, MiB, file pages included.

The program needs only what a rank offers (setup, save_checkpoint, load_latest), so that it also measures older
versions: put their folder first on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r1ray.config.schema import Config, RewardConfig

SIZES = {
    "tiny": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6, "vocab_size": 8192},
    "0.1B": {"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 12, "vocab_size": 32768},
    "0.5B": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "vocab_size": 151936},
}
RUN = "benchmark"
DEADLINE_S = 900.0


def make_model(folder: Path, size: str) -> None:
    """A Qwen2 with random bfloat16 weights, tied embeddings, and a tokenizer of as many tokens."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

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
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(SIZES[size]["vocab_size"])}, unk_token="w0"))  # noqa: S106
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)


def make_config(model: Path, options: argparse.Namespace) -> Config:
    """A configuration for the CPU."""
    config = Config()
    config.model.path, config.model.dtype, config.model.max_length = str(model), options.dtype, 256
    config.rewards = [RewardConfig(name="accuracy")]
    config.algorithm.kl_coefficient = options.kl
    config.learner.ranks, config.learner.num_gpus, config.learner.zero_stage = options.ranks, 0.0, options.stage
    config.deadlines.collective_s = config.deadlines.actor_start_s = config.deadlines.checkpoint_s = DEADLINE_S
    return config


class Meter:
    """Measures phases of this process."""

    def __init__(self) -> None:
        self.phases: dict[str, dict[str, float]] = {}

    def measure(self, name: str, work: Callable[[], Any]) -> Any:
        """Run `work` as the phase `name`."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
        before, began = _proc("io"), time.perf_counter()
        result = work()
        after = _proc("io")
        moved = {key: (after[key] - before[key]) / 1e6 for key in ("rchar", "wchar", "read_bytes")}
        peak = _proc("status")["VmHWM"] / 1024
        self.phases[name] = {"seconds": time.perf_counter() - began, **moved, "peak_mib": peak}
        return result


def _proc(name: str) -> dict[str, int]:
    lines = (line.split(":") for line in Path(f"/proc/self/{name}").read_text().splitlines())
    return {key: int(value.split()[0]) for key, value in lines if value.split() and value.split()[0].isdigit()}


def rank_main(pipe: Any, config: Config, rank: int, port: int, folder: str) -> None:
    """One rank: it starts, saves a checkpoint and loads it."""
    import deepspeed  # noqa: F401 - reading Python code is no part of a phase
    from transformers import Qwen2ForCausalLM  # noqa: F401

    from learner.policy import PolicyRank

    meter = Meter()
    learner = PolicyRank(config=config, rank=rank, fetch=lambda ids: [])
    meter.measure("start", lambda: learner.setup("127.0.0.1", port))
    checkpoints = Path(folder) / "checkpoints"
    meter.measure("save", lambda: learner.save_checkpoint(checkpoints / "step_000000", RUN))
    meter.measure("prune", lambda: learner.prune_checkpoints(checkpoints))
    drop_cache(checkpoints)
    loaded = meter.measure("load", lambda: learner.load_latest(checkpoints, RUN))
    assert loaded["name"] == "step_000000", loaded
    learner.close()
    pipe.send_bytes(json.dumps(meter.phases).encode())


def drop_cache(folder: Path) -> None:
    """Have the files below `folder` read from the disk the next time."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SIZES, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder, or one of this benchmark")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--stage", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--kl", type=float, default=0.1)
    options = parser.parse_args()
    model, context = options.folder / options.model, multiprocessing.get_context("spawn")
    if not (model / "config.json").exists():
        builder = context.Process(target=make_model, args=(model, options.model))
        builder.start()
        builder.join()
    drop_cache(model)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    config, ranks = make_config(model, options), []
    for rank in range(options.ranks):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=rank_main, args=(theirs, config, rank, port, str(options.folder)))
        process.start()
        theirs.close()
        ranks.append((ours, process))
    print(f"{options}\nmodel: {sum(p.stat().st_size for p in model.glob('*.safetensors')) / 1e6:.0f} MB", flush=True)
    for rank, (pipe, process) in enumerate(ranks):
        if not pipe.poll(DEADLINE_S):
            raise TimeoutError(f"rank {rank} gave no answer within {DEADLINE_S:g} s")
        for phase, found in json.loads(pipe.recv_bytes()).items():
            print(f"rank {rank} {phase:6s} " + "  ".join(f"{key} {value:,.1f}" for key, value in found.items()))
        process.join(60)


if __name__ == "__main__":
    main()
