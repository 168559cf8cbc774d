"""A random model folder, scored groups, and ranks in processes: what the learner's tests share."""

from __future__ import annotations

import json
import multiprocessing
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from benchmarks.groups import make_completion, make_group, make_manifest, make_prompt
from r1ray.codec import pack_scored
from r1ray.config.schema import Config, ModelConfig, RewardConfig
from r1ray.types import Score, ScoredGroup

VOCABULARY = 61

LORA = {"model__lora__rank": 3, "model__lora__alpha": 6.0}
"""Changes to a configuration: adapters on all linear layers, scaled by two."""


def make_model(folder: Path, *, seed: int = 11, **changes: Any) -> Path:
    """A small Qwen2 with random weights, grouped-query attention and tied embeddings,
    and a tokenizer of as many tokens.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
    }
    model = Qwen2ForCausalLM(Qwen2Config(**{**sizes, "tie_word_embeddings": True, **changes}))
    model.save_pretrained(folder)
    write_tokenizer(folder, VOCABULARY)
    return folder


def write_tokenizer(folder: Path, tokens: int) -> None:
    """A Qwen2 tokenizer of an end token and the first bytes of the alphabet; it drops all others."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    names = ["<|endoftext|>", *sorted(ByteLevel.alphabet())][:tokens]
    Qwen2Tokenizer(vocab={name: i for i, name in enumerate(names)}, merges=[]).save_pretrained(folder)


def make_config(model: Path, **changes: Any) -> Config:
    """A configuration for the CPU; `changes` are dotted keys with `__` for the dots."""
    config = Config()
    config.model.path, config.model.dtype, config.model.max_length = str(model), "float32", 64
    config.rewards = [RewardConfig(name="accuracy"), RewardConfig(name="format")]
    config.rollout.group_size, config.rollout.max_new_tokens = 4, 24
    config.learner.num_gpus, config.learner.zero_stage = 0.0, 0
    config.learner.groups_per_step, config.learner.micro_batch_tokens = 4, 96
    config.learner.optimizer.lr = 1e-3
    config.run.steps = 10
    config.deadlines.collective_s = 60.0
    for key, value in changes.items():
        *path, name = key.split("__")
        target: Any = config
        for part in path:
            target = getattr(target, part)
        assert hasattr(target, name), key
        setattr(target, name, value)
    return config


def make_groups(
    step: int, *, groups: int = 4, size: int = 4, seed: int = 0, temperature: float = 0.8
) -> list[ScoredGroup]:
    """Random groups of uneven lengths; the second half of each first completion was sampled by policy `step`."""
    rng = np.random.default_rng([seed, step])
    made = []
    for g in range(groups):
        completions = []
        for c in range(size):
            length = int(rng.integers(3, 24))
            switch = length // 2 if c == 0 else length
            spans = [(max(step - 1, 0), 0, switch), (step, switch, length)]
            completions.append(
                make_completion(
                    rng.integers(0, VOCABULARY, length, dtype=np.int32),
                    logprobs=rng.normal(-4.0, 0.3, length),
                    finish_reason="length" if length == 23 else "stop",
                    spans=[span for span in spans if span[1] < span[2]],
                )
            )
        ids = rng.integers(0, VOCABULARY, int(rng.integers(2, 9)), dtype=np.int32)
        prompt = make_prompt(g, token_ids=ids, answer=0, task="bus", messages=())
        rollout = make_group(f"{g}-0", prompt, completions, temperature=temperature)
        rewards = rng.integers(0, 2, size).tolist()
        scores = tuple(Score(reward=r + 0.5, parts={"accuracy": float(r), "format": 1.0}) for r in rewards)
        made.append(ScoredGroup(rollout=rollout, scores=scores))
    return made


def fetcher(groups: list[ScoredGroup]) -> Callable[[list[str]], list[bytes]]:
    by_id = {g.rollout.group_id: pack_scored(g) for g in groups}
    return lambda ids: [by_id[i] for i in ids]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def run_ranks(function: Callable[..., Any], world_size: int, *args: Any, timeout_s: float = 240.0) -> list[Any]:
    """`function(rank, world_size, port, *args)` in a fresh process per rank; the JSON of what each returns, by rank.

    The processes are forks of one that has imported DeepSpeed, as those of a run are.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["deepspeed", "learner.policy", __name__])
    port = free_port()
    pipes, processes = [], []
    for rank in range(world_size):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_rank_main, args=(theirs, function, rank, world_size, port, args), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        until = time.monotonic() + timeout_s
        answers = [_answer(rank, pipes[rank], processes[rank], until) for rank in range(world_size)]
    finally:
        for process in processes:
            process.join(20)
            if process.is_alive():
                process.kill()
    failures = [a["error"] for a in answers if "error" in a]
    assert not failures, "\n".join(failures)
    return [a["value"] for a in answers]


def _answer(rank: int, pipe: Any, process: Any, until: float) -> Any:
    """What came through the pipe of this rank, or that nothing did."""
    if not pipe.poll(max(until - time.monotonic(), 0.0)):
        return {"error": f"rank {rank} gave no answer in time"}
    try:
        return json.loads(pipe.recv_bytes())
    except EOFError:
        process.join(20)
        return {"error": f"rank {rank} died with exit code {process.exitcode}"}


def _rank_main(pipe: Any, function: Any, rank: int, world_size: int, port: int, args: tuple[Any, ...]) -> None:
    try:
        answer = {"value": function(rank, world_size, port, *args)}
    except BaseException:
        answer = {"error": f"rank {rank}: {traceback.format_exc()}"}
    pipe.send_bytes(json.dumps(answer).encode())


def load_policy(model: ModelConfig, folder: Path) -> Any:
    """The policy of a folder with its weights, in this process alone."""
    from learner.model import empty_policy

    return with_weights(empty_policy(model, folder), folder)


def with_weights(module: Any, folder: Path, fresh: Any = MappingProxyType({})) -> Any:
    """An empty module with the weights of the folder, on the CPU."""
    import torch

    from learner.empty import materialize
    from learner.model_folder import FolderReader

    materialize(module, FolderReader(folder, module.hf, fresh).read, device=torch.device("cpu"))
    return module


def io(key: str) -> int:
    """A counter of /proc/self/io, such as `rchar`: bytes that system calls of this process have read."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)[key])


def state_of(checkpoint: Path) -> dict[str, Any]:
    """Every complete tensor of a checkpoint: "state/<kind>/<name>", "reference/<name>"."""
    from learner.shard_file import read_tensors

    stems = {stem: sorted(checkpoint.glob(f"{stem}-*")) for stem in ("state", "reference")}
    return {f"{stem}/{name}": tensor for stem, paths in stems.items() for name, tensor in read_tensors(paths)}


def make_rank(rank: int, world_size: int, port: int, model: str, changes: dict[str, Any]) -> Any:
    from learner.policy import PolicyRank

    config = make_config(Path(model), **{**changes, "learner__ranks": world_size})
    learner = PolicyRank(config=config, rank=rank, fetch=fetcher([]))
    learner.setup("127.0.0.1", port)
    return learner


def train_step(learner: Any, step: int, groups: list[ScoredGroup]) -> dict[str, float]:
    """Train step `step` on these groups; its metrics."""
    learner._fetch = fetcher(groups)
    metrics: dict[str, float] = learner.train_step(make_manifest(step, groups))
    return metrics


def remake(learner: Any, model: str, changes: dict[str, Any]) -> None:
    """The learner anew in the same process group: DeepSpeed cannot leave one group and join another in one process."""
    learner._config = make_config(Path(model), **{**changes, "learner__ranks": learner._world_size})
    learner._folder = Path(model)
    learner.__dict__.pop("_format", None)  # of the model before
    learner.build(learner._engine.device)
