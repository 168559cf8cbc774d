"""What each value may be by itself: choices, ranges, and the entries of the lists of sources and rewards."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from r1ray.config.problems import Problem, problem, value_at
from r1ray.config.schema import Config, SourceConfig

CHOICES: dict[str, tuple[str, ...]] = {
    "model.dtype": ("float32", "bfloat16"),
    "model.attention": ("auto", "packed", "flash_attention_2"),
    "data.template": ("r1_zero", "r1", "plain", "tokenizer", "none"),
    "rollout.engine.dtype": ("auto", "float32", "bfloat16", "float16"),
    "reward_worker.sandbox": ("bubblewrap", "none"),
    "queue.stale_policy": ("requeue", "drop"),
    "algorithm.loss": ("grpo", "dr_grpo", "dapo", "gspo", "cispo"),
    "algorithm.advantage": ("group_norm", "mean_only", "leave_one_out", "reinforce_pp"),
    "algorithm.loss_aggregation": ("token", "sequence", "constant"),
    "algorithm.importance": ("behavior", "decoupled"),
    "algorithm.importance_correction": ("none", "truncated", "masked"),
    "learner.optimizer.schedule": ("constant", "linear", "cosine"),
    "sync.transport": ("auto", "gloo", "nccl", "ipc"),
    "sync.digest": ("full", "wire", "off"),
    "curation.format": ("as_is", "think_summary"),
    "curation.choice": ("random", "shortest", "longest"),
    "recovery.stall_policy": ("warn", "restart", "abort"),
}
IMPORTABLE = ("algorithm.loss", "algorithm.advantage")
"""Keys of CHOICES that also take the import path of a function, `module:function`."""
SOURCE_KINDS = ("synthetic", "jsonl", "parquet", "hf")

# key -> (lowest, highest, lowest is allowed); a key that is null is not looked at
_INF = math.inf
RANGES: dict[str, tuple[float, float, bool]] = {
    "run.steps": (1, _INF, True),
    "run.seed": (0, 2**32 - 1, True),
    "model.max_length": (2, _INF, True),
    "data.max_prompt_tokens": (1, _INF, True),
    "rollout.workers": (1, _INF, True),
    "rollout.max_workers": (1, _INF, True),
    "rollout.num_cpus": (0, _INF, True),
    "rollout.num_gpus": (0, _INF, True),
    "rollout.group_size": (1, _INF, True),
    "rollout.temperature": (0, 10, False),
    "rollout.top_p": (0, 1, False),
    "rollout.max_new_tokens": (1, _INF, True),
    "rollout.groups_in_engine": (1, _INF, True),
    "rollout.engine.max_num_seqs": (1, _INF, True),
    "rollout.engine.kv_cache_gib": (0, _INF, False),
    "rollout.engine.gpu_memory_utilization": (0, 1, False),
    "rollout.engine.tensor_parallel_size": (1, _INF, True),
    "reward_worker.workers": (1, _INF, True),
    "reward_worker.num_cpus": (0, _INF, True),
    "reward_worker.num_gpus": (0, _INF, True),
    "reward_worker.timeout_s": (0, _INF, False),
    "queue.max_staleness": (0, _INF, True),
    "queue.lease_timeout_s": (0, _INF, False),
    "queue.max_attempts": (1, _INF, True),
    "queue.max_requeues": (1, _INF, True),
    "queue.reserve_after_stale": (0, _INF, True),
    "queue.keep_payload_steps": (1, _INF, True),
    "algorithm.clip_low": (0, _INF, False),
    "algorithm.clip_high": (0, _INF, False),
    "algorithm.kl_coefficient": (0, _INF, True),
    "algorithm.reference_refresh_steps": (1, _INF, True),
    "algorithm.importance_cap": (1, _INF, False),  # at 1 `masked` would leave nothing
    "algorithm.entropy_coefficient": (0, _INF, True),
    "algorithm.overlong_buffer_tokens": (0, _INF, True),
    "algorithm.overlong_penalty": (0, _INF, True),
    "learner.ranks": (1, _INF, True),
    "learner.num_cpus": (0, _INF, True),
    "learner.num_gpus": (0, _INF, True),
    "learner.zero_stage": (0, 3, True),
    "learner.groups_per_step": (1, _INF, True),
    "learner.minibatches": (1, _INF, True),
    "learner.micro_batch_tokens": (1, _INF, True),
    "learner.optimizer.lr": (0, _INF, False),
    "learner.optimizer.eps": (0, _INF, False),
    "learner.optimizer.weight_decay": (0, _INF, True),
    "learner.optimizer.gradient_clip": (0, _INF, False),
    "learner.optimizer.warmup_steps": (0, _INF, True),
    "learner.optimizer.min_lr_ratio": (0, 1, True),
    "sync.bucket_bytes": (1024, _INF, True),
    "sync.deadline_s": (0, _INF, False),
    "sync.bucket_deadline_s": (0, _INF, False),
    "checkpoint.every_steps": (1, _INF, True),
    "checkpoint.keep": (1, _INF, True),
    "checkpoint.keep_every_steps": (1, _INF, True),
    "evaluation.every_steps": (0, _INF, True),
    "evaluation.samples": (0, _INF, True),
    "evaluation.temperature": (0, 10, False),
    "evaluation.top_p": (0, 1, False),
    "evaluation.max_new_tokens": (1, _INF, True),
    "hacking_monitor.max_kl": (0, _INF, False),
    "hacking_monitor.max_length_correlation": (0, 1, True),
    "hacking_monitor.consecutive_steps": (1, _INF, True),
    "sft.epochs": (1, _INF, True),
    "sft.batch_size": (1, _INF, True),
    "sft.held_out": (0, 0.5, True),
    "sft.evaluate_every_steps": (0, _INF, True),
    "sampling.prompts_per_part": (1, _INF, True),
    "curation.min_language": (0, 1, True),
    "curation.max_repetition": (0, 1, True),
    "curation.repetition_words": (1, 64, True),
    "curation.min_tokens": (0, _INF, True),
    "curation.max_tokens": (1, _INF, True),
    "curation.max_paragraph_words": (1, _INF, True),
    "curation.prompt_similarity": (0, 1, False),
    "curation.dataset_similarity": (0, 1, False),
    "curation.shingle_words": (1, 64, True),
    "curation.per_prompt": (1, _INF, True),
    "curation.refine.timeout_s": (0, _INF, False),
    "curation.refine.retries": (0, _INF, True),
    "curation.refine.max_calls": (0, _INF, True),
    "curation.refine.max_tokens": (1, _INF, True),
    "curation.refine.parallel": (1, 256, True),
    "curation.direct_below_words": (0, _INF, True),
    "curation.rows_per_file": (1, _INF, True),
    "deadlines.actor_start_s": (0, _INF, False),
    "deadlines.rpc_s": (0, _INF, False),
    "deadlines.step_s": (0, _INF, False),
    "deadlines.batch_s": (0, _INF, False),
    "deadlines.checkpoint_s": (0, _INF, False),
    "deadlines.evaluation_s": (0, _INF, False),
    "deadlines.shutdown_s": (0, _INF, False),
    "deadlines.collective_s": (0, _INF, False),
    "recovery.max_worker_restarts": (0, _INF, True),
    "recovery.max_learner_restarts": (0, _INF, True),
    "recovery.max_queue_restarts": (0, _INF, True),
    "recovery.max_missed_syncs": (1, _INF, True),
    "recovery.outage_timeout_s": (0, _INF, False),
    "recovery.max_nan_steps": (1, _INF, True),
    "recovery.max_nan_rollbacks": (0, _INF, True),
    "recovery.max_dropped_batches": (1, _INF, True),
    "recovery.max_memory_fraction": (0, 1, False),
    "recovery.stall_timeout_s": (0, _INF, False),
    "ray.num_cpus": (1, _INF, True),
    "ray.object_store_gib": (0.075, _INF, True),  # Ray refuses a smaller store
    "logging.transcripts_per_step": (0, _INF, True),
}


def choices(config: Config) -> Iterator[Problem]:
    """Values that are not among the words that a key takes."""
    for key, allowed in CHOICES.items():
        value = value_at(config, key)
        imported = key in IMPORTABLE and ":" in value
        if value not in allowed and not imported:
            also = ", or module:function" if key in IMPORTABLE else ""
            yield problem(config, key, "is not one of the choices", f"one of {', '.join(allowed)}{also}")


def ranges(config: Config) -> Iterator[Problem]:
    """Numbers out of range, and numbers that are none."""
    for key, (low, high, closed) in RANGES.items():
        value = value_at(config, key)
        if value is None:
            continue
        if not math.isfinite(value):
            yield problem(config, key, "is not finite", "give a finite number")
        elif value < low or value > high or (value == low and not closed):
            lower = f"at least {low:g}" if closed else f"above {low:g}"
            upper = f" and at most {high:g}" if high < _INF else ""
            yield problem(config, key, "is out of range", lower + upper)
    if not all(0 <= beta < 1 for beta in config.learner.optimizer.betas):
        yield problem(config, "learner.optimizer.betas", "is out of range", "each from 0 to below 1")


def lengths(config: Config) -> Iterator[Problem]:
    """Entries of the length schedule that cannot be."""
    for i, entry in enumerate(config.rollout.length_schedule):
        if entry.from_step < 0 or entry.max_new_tokens < 1:
            key = f"rollout.length_schedule.{i}.{'from_step' if entry.from_step < 0 else 'max_new_tokens'}"
            yield problem(config, key, "is out of range", "a step from 0 on, and at least 1 token")


def names(config: Config) -> Iterator[Problem]:
    """Names and paths that are empty."""
    for key in ("run.name", "run.dir", "model.path"):
        if not value_at(config, key).strip():
            yield problem(config, key, "is empty", "give it a name")


def rewards(config: Config) -> Iterator[Problem]:
    """No rewards, none that counts, or the same twice. A weight of 0 means: measured and reported, not trained on."""
    if not any(reward.weight for reward in config.rewards):
        yield problem(config, "rewards", "nothing is rewarded", "e.g. [{name: accuracy}, {name: format}]")
    seen: set[str] = set()
    for i, reward in enumerate(config.rewards):
        if not math.isfinite(reward.weight):
            yield problem(config, f"rewards.{i}.weight", "is not a finite number", "0 only measures the reward")
        if reward.name in seen:
            yield problem(config, f"rewards.{i}.name", "is there already", "one entry for each reward")
        seen.add(reward.name)


def sources(config: Config) -> Iterator[Problem]:
    """No training prompts, or a source that cannot be."""
    if not config.data.train:
        yield problem(config, "data.train", "no source of training prompts", "name one, as conf/tiny.yaml does")
    elif all(source.from_step for source in config.data.train):
        yield problem(config, "data.train.0.from_step", "no source begins with step 0", "0 for one of them")
    rewarded = [r.name for r in config.rewards]
    for section, entries in (("train", config.data.train), ("evaluation", config.data.evaluation)):
        yield from named_once(config, section, entries)
        for i, source in enumerate(entries):
            key = f"data.{section}.{i}"
            yield from _source(config, key, source, rewarded)
            if section == "evaluation" and source.kind == "synthetic" and source.limit is None:
                yield problem(config, f"{key}.limit", "a synthetic task has no end", "how many problems, e.g. 256")


def named_once(config: Config, section: str, entries: Sequence[SourceConfig]) -> Iterator[Problem]:
    """Names that two sources of `data.<section>` share."""
    seen: set[str] = set()
    for i, source in enumerate(entries):
        if source.name in seen:
            yield problem(config, f"data.{section}.{i}.name", "names two sources", "give each its own name")
        seen.add(source.name)


def limit(config: Config, key: str, source: SourceConfig) -> Iterator[Problem]:
    """A source, at `key`, of which nothing is taken."""
    if source.limit is not None and source.limit < 1:
        yield problem(config, f"{key}.limit", "leaves nothing of the source", "at least 1, or null for all")


def decontamination(config: Config) -> Iterator[Problem]:
    """Sources to compare with that cannot be, and a comparison with nothing, which would drop nothing and say so of nobody."""
    data = config.data
    for i, source in enumerate(data.decontaminate_against):
        key = f"data.decontaminate_against.{i}"
        yield from _source(config, key, source, [])
        if source.kind == "synthetic":
            message = "is a synthetic task, which keeps its splits apart itself"
            yield problem(config, f"{key}.kind", message, "jsonl, parquet or hf; leave a task out")
    compared = any(source.kind != "synthetic" for source in (*data.evaluation, *data.decontaminate_against))
    if data.decontaminate and not compared:
        message = "has nothing to compare with: no file or data set is evaluated"
        yield problem(config, "data.decontaminate", message, "name benchmarks in data.decontaminate_against, or false")


def shared_names(config: Config) -> Iterator[Problem]:
    """Sources of training and evaluation that share a name: rewards go by the name, so they must be the same."""
    trained = {source.name: source for source in config.data.train}
    for i, source in enumerate(config.data.evaluation):
        other = trained.get(source.name)
        if other is not None and other.rewards != source.rewards:
            message = f"is a training source too, which has the rewards {other.rewards}"
            yield problem(config, f"data.evaluation.{i}.name", message, "another name, or the same rewards")


def programs(config: Config) -> Iterator[Problem]:
    """The synthetic task that asks for a program, judged by a verifier of short answers."""
    verifiers = {r.name: r.params.get("verifier") for r in config.rewards if r.name.partition("/")[0] == "accuracy"}
    for section, entries in (("train", config.data.train), ("evaluation", config.data.evaluation)):
        for i, source in enumerate(entries):
            if source.kind != "synthetic" or source.path != "transpose":
                continue
            used = [v for name, v in verifiers.items() if source.rewards is None or name in source.rewards]
            if any(v != "code" for v in used):
                message = "asks for a program, which only the verifier `code` runs"
                fix = "{name: accuracy, params: {verifier: code}}, named in the source's rewards"
                yield problem(config, f"data.{section}.{i}.path", message, fix)


def _source(config: Config, key: str, source: SourceConfig, rewarded: list[str]) -> Iterator[Problem]:
    if source.kind not in SOURCE_KINDS:
        yield problem(config, f"{key}.kind", "is not one of the choices", f"one of {', '.join(SOURCE_KINDS)}")
    if source.path is None:
        what = "the task's name" if source.kind == "synthetic" else "a file, folder or hub id"
        yield problem(config, f"{key}.path", "has no path", f"give {what}")
    if not (math.isfinite(source.weight) and source.weight > 0):
        yield problem(config, f"{key}.weight", "is out of range", "above 0")
    if source.from_step < 0:
        yield problem(config, f"{key}.from_step", "is before the first step", "0: from the beginning")
    yield from limit(config, key, source)
    if source.rewards is not None and (not source.rewards or not set(source.rewards) <= set(rewarded)):
        fix = f"some of {', '.join(rewarded)}, or null for all"
        yield problem(config, f"{key}.rewards", "are not among `rewards`, or none", fix)


GENERAL = (choices, ranges, lengths, names)
"""What holds for every command."""
