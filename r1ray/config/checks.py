"""Cross-field validation. It reads nothing but the configuration; `r1ray.preflight` checks disk and machine.

A check is a generator from a Config to the Problems it finds. `check` runs all and reports all problems together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from r1ray.config.algorithm import ALGORITHM
from r1ray.config.autoscale import autoscale
from r1ray.config.curation import curation, sampled_sources
from r1ray.config.data import decontamination, rewards, shared_names, sources, task_verifiers, unique_names
from r1ray.config.experts import expert_parallel, no_expert_parallel
from r1ray.config.lengths import longest_completion
from r1ray.config.lora import adapters, adapters_keep_reference, no_adapters
from r1ray.config.problems import Problem, problem, value_at
from r1ray.config.schema import Config
from r1ray.config.sequence import row_holds, sequence_parallel
from r1ray.config.transport import transport
from r1ray.config.uses import Use, replays

Check = Callable[[Config], Iterator[Problem]]

ENGINE_KEYS = {
    "model": "model.path",
    "tokenizer": "model.path",
    "max_model_len": "model.max_length",
    "seed": "run.seed",
    "trust_remote_code": "model.trust_remote_code",
    "dtype": "rollout.engine.dtype",
    "max_num_seqs": "rollout.engine.max_num_seqs",
    "kv_cache_memory_bytes": "rollout.engine.kv_cache_gib",
    "gpu_memory_utilization": "rollout.engine.gpu_memory_utilization",
    "tensor_parallel_size": "rollout.engine.tensor_parallel_size",
    "enforce_eager": "rollout.engine.enforce_eager",
    "enable_prefix_caching": "rollout.engine.prefix_caching",
}
"""vLLM argument -> the key that sets it, so that it may not be in `rollout.engine.extra`."""


PARALLEL_KEYS = {
    "pipeline_parallel_size": "remove it and set rollout.engine.tensor_parallel_size",
    "data_parallel_size": "remove it and set rollout.workers: each has an engine of its own",
    "decode_context_parallel_size": "remove it",
    "prefill_context_parallel_size": "remove it",
}
"""vLLM argument that must be 1 -> what to set instead."""


def check(config: Config, use: Use = "train") -> list[Problem]:
    """Return every problem of the combinations of values in `config`.

    Checks across sections run only if every section is valid: otherwise they would report consequences.
    """
    sections, across = _REPLAY if replays(config, use) else CHECKS[use]
    found = [p for rule in sections for p in rule(config)]
    return found or [p for rule in across for p in rule(config)]


def _lengths(config: Config) -> Iterator[Problem]:
    """Find lengths that do not fit into the model, the micro-batch or each other."""
    prompt, room = config.data.max_prompt_tokens, config.model.max_length
    longest = prompt + longest_completion(config)
    if longest > room:
        message = f"is shorter than data.max_prompt_tokens + the longest rollout.max_new_tokens = {longest}"
        yield problem(config, "model.max_length", message, f"use at least {longest}, or shorten one of the two")
    if prompt + (config.evaluation.max_new_tokens or 0) > room:
        message = f"does not fit into model.max_length = {room} beside data.max_prompt_tokens = {prompt}"
        yield problem(config, "evaluation.max_new_tokens", message, f"use at most {room - prompt}")
    yield from row_holds(config, longest, "the longest sequence (data.max_prompt_tokens + rollout.max_new_tokens)")
    steps = [entry.from_step for entry in config.rollout.length_schedule]
    if steps != sorted(set(steps)):
        fix = "sort the entries by from_step, each step once, e.g. [{from_step: 8200, max_new_tokens: 65536}]"
        yield problem(config, "rollout.length_schedule", "is not in the order of its steps", fix)
    shortest = min([config.rollout.max_new_tokens, *(e.max_new_tokens for e in config.rollout.length_schedule)])
    if config.algorithm.overlong_buffer_tokens >= shortest:
        fix = f"use less than rollout.max_new_tokens = {shortest}"
        yield problem(config, "algorithm.overlong_buffer_tokens", "covers the whole completion", fix)


def _batch(config: Config) -> Iterator[Problem]:
    """Find a number of minibatches that does not divide the batch."""
    learner = config.learner
    if learner.groups_per_step % learner.minibatches:
        message = f"does not divide learner.groups_per_step = {learner.groups_per_step}"
        yield problem(config, "learner.minibatches", message, f"use one of {_divisors(learner.groups_per_step)}")


def _determinism(config: Config) -> Iterator[Problem]:
    """Find keys that make the order of the groups depend on timing in a deterministic run."""
    if config.run.deterministic:
        for key, wanted in (("queue.max_staleness", 0), ("rollout.workers", 1), ("reward_worker.workers", 1)):
            if value_at(config, key) != wanted:
                message = "lets timing decide the order of the groups, but run.deterministic is true"
                yield problem(config, key, message, f"set {key}={wanted}")


def _deadlines(config: Config) -> Iterator[Problem]:
    """Find deadlines that expire before an operation that they contain: no progress, or one failure ends the run."""
    for shorter, longer, what in (
        ("reward_worker.timeout_s", "queue.lease_timeout_s", "one verification of a leased group"),
        ("queue.lease_timeout_s", "deadlines.batch_s", "the lease of a worker that died"),
        ("sync.bucket_deadline_s", "sync.deadline_s", "one bucket of the sync"),
        ("deadlines.collective_s", "deadlines.step_s", "one collective of the step"),
    ):
        least = value_at(config, shorter)
        if value_at(config, longer) < least:
            yield problem(config, longer, f"expires before {what} may end", f"use at least {shorter} = {least:g}")


def _ledger(config: Config) -> Iterator[Problem]:
    """Find a folder of the ledger that would depend on the working directory of the queue's process."""
    folder = config.run.ledger_dir
    if folder is not None and not folder.startswith(("/", "~/")):
        yield problem(config, "run.ledger_dir", "is not absolute", "begin it with / or ~/")


def _learner(config: Config) -> Iterator[Problem]:
    """Find settings of the learner that need another ZeRO stage, another type or a GPU."""
    learner = config.learner
    if learner.zero_stage == 0 and config.model.dtype == "bfloat16":
        message = "keeps no float32 copy of bfloat16 weights"
        yield problem(config, "learner.zero_stage", message, "use 1 to 3, or model.dtype=float32")
    for key, stages in (("learner.offload_parameters", "3"), ("learner.offload_optimizer", "1 to 3")):
        if value_at(config, key) and learner.num_gpus == 0:
            message = "moves data from a GPU to the host, but learner.num_gpus is 0"
            yield problem(config, key, message, "set it to false")
        elif value_at(config, key) and learner.zero_stage < int(stages[0]):
            yield problem(config, key, f"needs ZeRO {stages}", f"set it to false, or learner.zero_stage={stages[0]}")
    if learner.shared_prompts and learner.num_gpus > 0:
        message = "needs attention that gathers rows, which the learner has on a CPU only"
        yield problem(config, "learner.shared_prompts", message, "use null or false")
    if learner.num_gpus == 0 and config.model.attention == "flash_attention_2":
        yield problem(config, "model.attention", "needs a GPU", "use auto, or learner.num_gpus above 0")


def _warm_up(config: Config) -> Iterator[Problem]:
    """Find a warm-up that is longer than the run."""
    if config.learner.optimizer.warmup_steps > config.run.steps:
        message = f"does not end within run.steps = {config.run.steps}"
        yield problem(config, "learner.optimizer.warmup_steps", message, f"use at most {config.run.steps}")


def _engine(config: Config) -> Iterator[Problem]:
    """Find settings of the rollout workers and their engines that contradict each other or the devices."""
    rollout, engine = config.rollout, config.rollout.engine
    if rollout.max_workers < rollout.workers:
        yield problem(
            config,
            "rollout.max_workers",
            f"is below rollout.workers = {rollout.workers}",
            f"use at least {rollout.workers}",
        )
    if engine.tensor_parallel_size > 1 and rollout.num_gpus != 1:
        message = f"shards the model over whole GPUs, but rollout.num_gpus is {rollout.num_gpus:g}"
        yield problem(config, "rollout.engine.tensor_parallel_size", message, "use 1, or rollout.num_gpus=1")
    if engine.tensor_parallel_size % engine.hosts:
        message = f"does not divide rollout.engine.tensor_parallel_size = {engine.tensor_parallel_size}"
        fix = f"use one of {_divisors(engine.tensor_parallel_size)}"
        yield problem(config, "rollout.engine.hosts", message, fix)
    elif engine.hosts > 1 and config.ray.address is None:
        message = "needs the nodes of a cluster, but ray.address is null: the run has this machine only"
        yield problem(config, "rollout.engine.hosts", message, "use 1, or ray.address=auto")
    if rollout.num_gpus == 0 and engine.kv_cache_gib is None:
        message = "leaves the size to vLLM, which takes a large part of the memory on a CPU"
        yield problem(config, "rollout.engine.kv_cache_gib", message, "set a size, e.g. 0.25 for a tiny model")
    if rollout.num_gpus == 0 and not engine.enforce_eager:
        message = "compiles the model, which takes minutes on a CPU"
        yield problem(config, "rollout.engine.enforce_eager", message, "set it to true")
    for name in sorted(set(engine.extra) & set(ENGINE_KEYS)):
        key = f"rollout.engine.extra.{name}"
        message, fix = "is set by another key", f"remove it and set {ENGINE_KEYS[name]}"
        yield Problem(key=key, value=engine.extra[name], message=message, fix=fix)
    for name in sorted(set(engine.extra) & set(PARALLEL_KEYS)):
        if engine.extra[name] != 1:
            key, message = f"rollout.engine.extra.{name}", "adds processes that get no rank in the weight-sync group"
            yield Problem(key=key, value=engine.extra[name], message=message, fix=PARALLEL_KEYS[name])


def _reward_gpus(config: Config) -> Iterator[Problem]:
    """Find GPUs that no reward model uses.

    A reward model is on one GPU of its worker; `auto` is the first one. User-defined rewards may use any number.
    """
    held, models = (
        config.reward_worker.num_gpus,
        [r for r in config.rewards if r.name.partition("/")[0] in ("model", "fluency")],
    )
    used = len(
        {"cuda:0"} | {str(r.params["device"]) for r in models if str(r.params.get("device")).startswith("cuda:")}
    )
    if models and held > used and not any(":" in r.name for r in config.rewards):
        message = f"reserves {held:g} GPUs for each reward worker, of which its reward models use {used}"
        fix = f"use {used}, or give each model its own `device`, e.g. cuda:1"
        yield problem(config, "reward_worker.num_gpus", message, fix)


def _evaluation(config: Config) -> Iterator[Problem]:
    """Find evaluations without problems or without completions."""
    evaluation = config.evaluation
    if evaluation.every_steps and not config.data.evaluation:
        fix = "add a source to data.evaluation, or set it to 0"
        yield problem(config, "evaluation.every_steps", "is above 0, but data.evaluation is empty", fix)
    if config.data.evaluation and evaluation.samples == 0 and not evaluation.greedy:
        fix = "use at least 1, or evaluation.greedy=true"
        yield problem(config, "evaluation.samples", "leaves no completion, as evaluation.greedy is false", fix)


def _conversations(config: Config) -> Iterator[Problem]:
    yield from _supervised_sources(config, "sft", "conversations")


def _preferences(config: Config) -> Iterator[Problem]:
    yield from _supervised_sources(config, "reward-model", "preferences")


def _supervised_sources(config: Config, use: Use, rows: str) -> Iterator[Problem]:
    """Find sources that supervised training cannot read.

    It reads each source of `rows` completely and does not mix them.
    """
    if not config.data.train:
        fix = f"add a source of {rows}, e.g. [{{name: {rows}, kind: jsonl, path: ...}}]"
        yield problem(config, "data.train", "is empty", fix)
    if config.data.decontaminate:
        message = f"applies to prompts of `r1ray train` and `r1ray sample`; `r1ray {use}` trains on all {rows}"
        yield problem(config, "data.decontaminate", message, "set it to false here, and to true for the sampling")
    yield from unique_names(config, "evaluation", config.data.evaluation)  # metrics carry the name
    for section, entries in (("train", config.data.train), ("evaluation", config.data.evaluation)):
        for i, source in enumerate(entries):
            key = f"data.{section}.{i}"
            if source.kind not in ("jsonl", "parquet", "hf"):
                yield problem(config, f"{key}.kind", f"has no {rows}", "use jsonl, parquet or hf")
            if source.path is None:
                yield problem(config, f"{key}.path", "is not set", "give a file, a folder or a hub id")
            known = ("subset", "revision") if source.kind == "hf" else ()
            for name in sorted(set(source.params) - set(known)):
                fix = f"use one of {', '.join(known)}" if known else "remove it"
                message = f"is not a parameter of a {source.kind} source of {rows}"
                yield Problem(key=f"{key}.params.{name}", value=source.params[name], message=message, fix=fix)
            if source.weight != 1.0:
                message = f"has no effect in `r1ray {use}`, which trains on every row once per epoch"
                yield problem(
                    config, f"{key}.weight", message, "use 1.0; to change the share of a source, set its limit"
                )


def _longest_conversation(config: Config) -> Iterator[Problem]:
    """Find a micro-batch that is shorter than the longest conversation."""
    length = config.model.max_length
    yield from row_holds(config, length, f"the longest conversation (model.max_length = {length})")


def _longest_preference(config: Config) -> Iterator[Problem]:
    """Find a micro-batch that is shorter than the longest row; it holds both responses of a pair."""
    responses = 2 if config.reward_model.kind == "pairwise" else 1
    least = responses * config.model.max_length
    yield from row_holds(config, least, f"the longest row ({responses} x model.max_length = {least})")


def _divisors(n: int) -> str:
    found = [str(d) for d in range(1, n + 1) if n % d == 0]
    return ", ".join(found[:12]) + (", ..." if len(found) > 12 else "")


_LEARNER: tuple[Check, ...] = (
    *(_lengths, _batch, _deadlines, *ALGORITHM, _ledger, _learner, sequence_parallel, expert_parallel, _warm_up),
    *(adapters, adapters_keep_reference),
)
_TRAIN = (*_LEARNER, _determinism, _engine, autoscale, transport, _reward_gpus, _evaluation)

_REWARDED: tuple[Check, ...] = (rewards, sources, decontamination, shared_names, task_verifiers)
_REPLAY = (_REWARDED, _LEARNER)

CHECKS: dict[Use, tuple[tuple[Check, ...], tuple[Check, ...]]] = {
    "train": (_REWARDED, _TRAIN),
    "sft": ((_conversations,), (_longest_conversation, _learner, sequence_parallel, expert_parallel, adapters)),
    "reward-model": (
        (_preferences,),
        (_longest_preference, _learner, sequence_parallel, no_expert_parallel, no_adapters),
    ),
    "sample": (_REWARDED, (_engine, _reward_gpus, sampled_sources, curation)),
    "eval": ((), (_engine,)),
}
"""Use -> (checks of single sections, checks across sections)."""
