"""The keys that identify a run, and those that may change when it is resumed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from r1ray.config.problems import Problem, Provenance, refuse
from r1ray.config.schema import Config
from r1ray.config.uses import Use

ALTERABLE = (
    "run.steps",
    "run.name",
    "run.dir",
    "run.ledger_dir",
    "run.ledger_on_network",
    "run.ledger_copy_every_s",
    "rollout.workers",
    "rollout.max_workers",
    "rollout.autoscale",
    "rollout.num_cpus",
    "rollout.groups_in_engine",
    "rollout.spot_notice",
    "reward_worker.workers",
    "reward_worker.num_cpus",
    "queue.lease_timeout_s",
    "queue.max_requeues",
    "queue.reserve_after_stale",
    "queue.keep_payload_steps",
    "replay",
    "evaluation.every_steps",
    "hacking_monitor.max_length_correlation",
    "hacking_monitor.consecutive_steps",
    "hacking_monitor.max_heldout_fall",
    "sft.evaluate_every_steps",
    "reward_model.evaluate_every_steps",
    "curation",
    "sync",
    "checkpoint",
    "deadlines",
    "recovery",
    "hardware",
    "ray",
    "logging",
)
"""Keys and sections that a resume may change: they decide speed and place, not what the run learns or samples."""

DIVISION = (
    "learner.ranks",
    "learner.num_cpus",
    "learner.num_gpus",
    "learner.zero_stage",
    "learner.offload_optimizer",
    "learner.offload_parameters",
    "learner.sequence_parallel",
    "learner.micro_batch_tokens",
    "learner.shared_prompts",
)
"""Keys that divide a training step among ranks and memory. They change only the order of its sums, so that a resume may
change them unless `run.deterministic` promises equal bits."""

DIVIDED: tuple[Use, ...] = ("train", "sft", "reward-model")
"""Commands that train."""


def flatten(config: Config) -> dict[str, Any]:
    """Return dotted key -> value of every leaf; lists and maps with free keys are leaves."""
    flat: dict[str, Any] = {}

    def walk(section: dict[str, Any], prefix: str, typed: Any) -> None:
        for name, value in section.items():
            inner = getattr(typed, name)
            if isinstance(value, dict) and not isinstance(inner, dict):
                walk(value, f"{prefix}{name}.", inner)
            else:
                flat[prefix + name] = value

    walk(asdict(config), "", config)
    return flat


def changes(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Return dotted key -> (old value, new value) for each key that differs."""
    before, after = flatten(old), flatten(new)
    return {key: (before[key], after[key]) for key in before if before[key] != after[key]}


def may_change(key: str, use: Use = "train", *, deterministic: bool = False) -> bool:
    """Return whether a resume of the command `use` may change `key`. `deterministic` is the run's own setting."""
    allowed = (*ALTERABLE, *(DIVISION if use in DIVIDED and not deterministic else ()))
    return any(key == name or key.startswith(f"{name}.") for name in allowed)


def config_hash(config: Config, use: Use = "train") -> str:
    """Return the fingerprint of the keys that a resume may not change: 16 hex digits."""
    exact = config.run.deterministic
    fixed = {key: value for key, value in flatten(config).items() if not may_change(key, use, deterministic=exact)}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:16]


def refuse_another_run(stored: Config, wanted: Config, provenance: Provenance, use: Use = "train") -> None:
    """Raise ConfigError with every key of `wanted` that a resume of the run `stored` may not change."""
    problems = [
        Problem(
            key=key, value=new, message=f"the run was started with {old!r}", fix="keep that value, or start a new run"
        )
        for key, (old, new) in changes(stored, wanted).items()
        if not may_change(key, use, deterministic=stored.run.deterministic)
    ]
    refuse(problems, provenance)
