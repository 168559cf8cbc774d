"""What values may not be together. Pure: what only the machine or the disk can tell is in `surroundings`.

A check is a generator from a Config to the Problems it finds; `check` runs them all, so that all problems come at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from r1ray.config.algorithm import ALGORITHM
from r1ray.config.curation import curation, sampled_whole
from r1ray.config.data import decontamination, named_once, programs, rewards, shared_names, sources
from r1ray.config.lengths import longest_completion
from r1ray.config.problems import Problem, problem, value_at
from r1ray.config.schema import Config
from r1ray.config.transport import transport

Check = Callable[[Config], Iterator[Problem]]

Use = Literal["train", "sft", "sample", "eval"]
"""The command that a configuration is for: what it does not read, it does not check."""

PROCESSES: dict[Use, tuple[str, ...]] = {
    "train": ("learner", "rollout", "reward_worker"),
    "sft": ("learner",),
    "sample": ("rollout", "reward_worker"),
    "eval": ("rollout", "reward_worker"),
}
"""Use -> the sections of the processes that it starts."""

# vLLM arguments that other keys set, and where
ENGINE_KEYS = {
    "model": "model.path",
    "tokenizer": "model.path",
    "max_model_len": "model.max_length",
    "seed": "run.seed",
    "dtype": "rollout.engine.dtype",
    "max_num_seqs": "rollout.engine.max_num_seqs",
    "kv_cache_memory_bytes": "rollout.engine.kv_cache_gib",
    "gpu_memory_utilization": "rollout.engine.gpu_memory_utilization",
    "tensor_parallel_size": "rollout.engine.tensor_parallel_size",
    "enforce_eager": "rollout.engine.enforce_eager",
    "enable_prefix_caching": "rollout.engine.prefix_caching",
}


def check(config: Config, use: Use = "train") -> list[Problem]:
    """Every problem that the configuration shows by itself."""
    each, together = CHECKS[use]
    found = [p for rule in each for p in rule(config)]
    # Whether values fit each other is only worth telling where each is possible.
    return found or [p for rule in together for p in rule(config)]


def _lengths(config: Config) -> Iterator[Problem]:
    prompt, room = config.data.max_prompt_tokens, config.model.max_length
    longest = prompt + longest_completion(config)
    if longest > room:
        message = f"is shorter than data.max_prompt_tokens + the longest rollout.max_new_tokens = {longest}"
        yield problem(config, "model.max_length", message, f"at least {longest}, or shorten one of the two")
    if prompt + (config.evaluation.max_new_tokens or 0) > room:
        message = f"does not fit into model.max_length = {room} beside data.max_prompt_tokens = {prompt}"
        yield problem(config, "evaluation.max_new_tokens", message, f"at most {room - prompt}")
    if config.learner.micro_batch_tokens < longest:
        message = "cannot hold one longest sequence (data.max_prompt_tokens + rollout.max_new_tokens)"
        yield problem(config, "learner.micro_batch_tokens", message, f"at least {longest}")
    steps = [entry.from_step for entry in config.rollout.length_schedule]
    if steps != sorted(set(steps)):
        fix = "each later step once, e.g. [{from_step: 8200, max_new_tokens: 65536}]"
        yield problem(config, "rollout.length_schedule", "is not in the order of its steps", fix)
    shortest = min([config.rollout.max_new_tokens, *(e.max_new_tokens for e in config.rollout.length_schedule)])
    if config.algorithm.overlong_buffer_tokens >= shortest:
        fix = f"below rollout.max_new_tokens = {shortest}"
        yield problem(config, "algorithm.overlong_buffer_tokens", "covers the whole completion", fix)


def _batch(config: Config) -> Iterator[Problem]:
    learner = config.learner
    if learner.groups_per_step % learner.minibatches:
        message = f"does not divide learner.groups_per_step = {learner.groups_per_step}"
        yield problem(config, "learner.minibatches", message, f"one of {_divisors(learner.groups_per_step)}")


def _determinism(config: Config) -> Iterator[Problem]:
    if config.run.deterministic:
        for key, wanted in (("queue.max_staleness", 0), ("rollout.workers", 1), ("reward_worker.workers", 1)):
            if value_at(config, key) != wanted:
                message = "lets timing decide the order of the groups, but run.deterministic is true"
                yield problem(config, key, message, f"{key}={wanted}")


def _waiting(config: Config) -> Iterator[Problem]:
    """Waits that end before what they wait for may end: such a run never moves, or dies of one failure."""
    for shorter, longer, what in (
        ("reward_worker.timeout_s", "queue.lease_timeout_s", "one verification of a leased group"),
        ("queue.lease_timeout_s", "deadlines.batch_s", "the lease of a worker that died"),
        ("sync.bucket_deadline_s", "sync.deadline_s", "one bucket of the sync"),
        ("deadlines.collective_s", "deadlines.step_s", "one collective of the step"),
    ):
        least = value_at(config, shorter)
        if value_at(config, longer) < least:
            yield problem(config, longer, f"runs out before {what} may end", f"above {shorter} = {least:g}")


def _learner(config: Config) -> Iterator[Problem]:
    learner = config.learner
    if learner.zero_stage == 0 and config.model.dtype == "bfloat16":
        message = "keeps no float32 weights beside bfloat16 ones"
        yield problem(config, "learner.zero_stage", message, "1 to 3, or model.dtype=float32")
    for key, stages in (("learner.offload_parameters", "3"), ("learner.offload_optimizer", "1 to 3")):
        if value_at(config, key) and learner.num_gpus == 0:
            yield problem(config, key, "moves what is on a GPU to the host, but learner.num_gpus is 0", "false")
        elif value_at(config, key) and learner.zero_stage < int(stages[0]):
            yield problem(config, key, f"needs ZeRO {stages}", f"false, or learner.zero_stage={stages[0]}")
    if learner.shared_prompts and learner.num_gpus > 0:
        message = "needs attention that gathers rows, which the learner uses on a CPU only"
        yield problem(config, "learner.shared_prompts", message, "null or false")
    if learner.num_gpus == 0 and config.model.attention == "flash_attention_2":
        yield problem(config, "model.attention", "needs a GPU", "auto, or learner.num_gpus above 0")


def _warm_up(config: Config) -> Iterator[Problem]:
    if config.learner.optimizer.warmup_steps > config.run.steps:
        message = f"does not end within run.steps = {config.run.steps}"
        yield problem(config, "learner.optimizer.warmup_steps", message, f"at most {config.run.steps}")


def _engine(config: Config) -> Iterator[Problem]:
    rollout, engine = config.rollout, config.rollout.engine
    if rollout.max_workers < rollout.workers:
        yield problem(config, "rollout.max_workers", "is fewer than at the start", f"at least {rollout.workers}")
    if engine.tensor_parallel_size > 1 and rollout.num_gpus != 1:
        message = f"splits the model over whole GPUs, but rollout.num_gpus is {rollout.num_gpus:g}"
        yield problem(config, "rollout.engine.tensor_parallel_size", message, "1, or rollout.num_gpus=1")
    if rollout.num_gpus == 0 and engine.kv_cache_gib is None:
        message = "leaves the size to vLLM, which on a CPU takes a large part of the memory"
        yield problem(config, "rollout.engine.kv_cache_gib", message, "e.g. 0.25 for a tiny model")
    if rollout.num_gpus == 0 and not engine.enforce_eager:
        message = "compiles the model, which on a CPU costs minutes at the start"
        yield problem(config, "rollout.engine.enforce_eager", message, "true")
    for name in sorted(set(engine.extra) & set(ENGINE_KEYS)):
        key = f"rollout.engine.extra.{name}"
        yield Problem(key=key, value=engine.extra[name], message="has a key of its own", fix=f"set {ENGINE_KEYS[name]}")


def _reward_gpus(config: Config) -> Iterator[Problem]:
    """A reward model stands on one GPU of its worker: `auto` is the first one. What a user's own reward does is not known."""
    held, models = config.reward_worker.num_gpus, [r for r in config.rewards if r.name.partition("/")[0] == "model"]
    used = len(
        {"cuda:0"} | {str(r.params["device"]) for r in models if str(r.params.get("device")).startswith("cuda:")}
    )
    if models and held > used and not any(":" in r.name for r in config.rewards):
        message = f"reserves {held:g} GPUs for each reward worker, of which its reward models use {used}"
        yield problem(
            config, "reward_worker.num_gpus", message, f"{used}, or another `device` for each model, e.g. cuda:1"
        )


def _evaluation(config: Config) -> Iterator[Problem]:
    evaluation = config.evaluation
    if evaluation.every_steps and not config.data.evaluation:
        fix = "name a source in data.evaluation, or set it to 0"
        yield problem(config, "evaluation.every_steps", "has nothing to evaluate on", fix)
    if config.data.evaluation and evaluation.samples == 0 and not evaluation.greedy:
        fix = "at least 1, or evaluation.greedy=true"
        yield problem(config, "evaluation.samples", "without a greedy completion measures nothing", fix)


def _conversations(config: Config) -> Iterator[Problem]:
    """Sources of supervised fine-tuning, which are gone through whole and not mixed."""
    if not config.data.train:
        yield problem(
            config, "data.train", "no source of conversations", "e.g. [{name: chats, kind: jsonl, path: ...}]"
        )
    if config.data.decontaminate:
        message = "compares prompts of RL and of sampling; conversations are trained on as they are"
        yield problem(config, "data.decontaminate", message, "false, and true where these were sampled")
    yield from named_once(config, "evaluation", config.data.evaluation)  # figures are told by the name
    for section, entries in (("train", config.data.train), ("evaluation", config.data.evaluation)):
        for i, source in enumerate(entries):
            key = f"data.{section}.{i}"
            if source.kind not in ("jsonl", "parquet", "hf"):
                yield problem(config, f"{key}.kind", "holds no conversations", "jsonl, parquet or hf")
            if source.path is None:
                yield problem(config, f"{key}.path", "has no path", "give a file, folder or hub id")
            known = ("subset", "revision") if source.kind == "hf" else ()
            for name in sorted(set(source.params) - set(known)):
                fix = f"one of {', '.join(known)}" if known else "leave it out"
                message = "is no parameter of such a source of conversations"
                yield Problem(key=f"{key}.params.{name}", value=source.params[name], message=message, fix=fix)
            if source.weight != 1.0:
                message = "has no meaning here: every conversation is trained on once an epoch"
                yield problem(config, f"{key}.weight", message, "1.0; a limit, or more epochs in a run of its own")


def _longest_conversation(config: Config) -> Iterator[Problem]:
    if config.learner.micro_batch_tokens < config.model.max_length:
        message = f"cannot hold one longest conversation (model.max_length = {config.model.max_length})"
        yield problem(config, "learner.micro_batch_tokens", message, f"at least {config.model.max_length}")


def _divisors(n: int) -> str:
    found = [str(d) for d in range(1, n + 1) if n % d == 0]
    return ", ".join(found[:12]) + (", ..." if len(found) > 12 else "")


_TRAIN: tuple[Check, ...] = (
    _lengths,
    _batch,
    _determinism,
    _waiting,
    *ALGORITHM,
    _learner,
    _warm_up,
    _engine,
    transport,
    _reward_gpus,
    _evaluation,
)

_REWARDED: tuple[Check, ...] = (rewards, sources, decontamination, shared_names, programs)

CHECKS: dict[Use, tuple[tuple[Check, ...], tuple[Check, ...]]] = {
    "train": (_REWARDED, _TRAIN),
    "sft": ((_conversations,), (_longest_conversation, _learner)),
    "sample": (_REWARDED, (_engine, _reward_gpus, sampled_whole, curation)),
    "eval": ((), (_engine,)),
}
"""Use -> checks of single sections, and checks of combinations, which run once the first ones pass."""
