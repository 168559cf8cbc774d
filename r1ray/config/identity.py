"""What of a configuration makes a run this run, and what may change when it is resumed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from r1ray.config.checks import Use
from r1ray.config.problems import Problem, Provenance, refuse
from r1ray.config.schema import Config

ALTERABLE = (
    "run.steps",
    "run.name",
    "run.dir",
    "rollout.workers",
    "rollout.max_workers",
    "rollout.num_cpus",
    "rollout.groups_in_engine",
    "reward_worker.workers",
    "reward_worker.num_cpus",
    "queue.lease_timeout_s",
    "queue.max_requeues",
    "queue.reserve_after_stale",
    "queue.keep_payload_steps",
    "evaluation.every_steps",
    "hacking_monitor.max_length_correlation",
    "hacking_monitor.consecutive_steps",
    "sft.evaluate_every_steps",
    "curation",
    "sync",
    "checkpoint",
    "deadlines",
    "recovery",
    "ray",
    "logging",
)
"""Keys and sections that a resume may change: they say how fast and where a run goes, not what it learns or samples."""

DIVISION = (
    "learner.ranks",
    "learner.num_cpus",
    "learner.num_gpus",
    "learner.zero_stage",
    "learner.offload_optimizer",
    "learner.offload_parameters",
    "learner.micro_batch_tokens",
    "learner.shared_prompts",
)
"""How a training step, which stays the same, is divided among ranks and memories. It decides the order of sums, so under
`run.deterministic`, which promises every bit, it may not change."""

DIVIDED: tuple[Use, ...] = ("train", "sft")
"""The uses that train."""


def flatten(config: Config) -> dict[str, Any]:
    """Dotted key -> value of every leaf; lists and free maps are leaves."""
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
    """Dotted key -> (old value, new value) where the two differ."""
    before, after = flatten(old), flatten(new)
    return {key: (before[key], after[key]) for key in before if before[key] != after[key]}


def may_change(key: str, use: Use = "train", *, deterministic: bool = False) -> bool:
    """Whether a resume of that command may change `key`; `deterministic` is the run's key of that name."""
    allowed = (*ALTERABLE, *(DIVISION if use in DIVIDED and not deterministic else ()))
    return any(key == name or key.startswith(f"{name}.") for name in allowed)


def config_hash(config: Config, use: Use = "train") -> str:
    """Fingerprint of all that may not change on a resume: 16 hex digits."""
    exact = config.run.deterministic
    fixed = {key: value for key, value in flatten(config).items() if not may_change(key, use, deterministic=exact)}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:16]


def refuse_another_run(stored: Config, wanted: Config, provenance: Provenance, use: Use = "train") -> None:
    """Raise ConfigError that names every key in which `wanted` would make the resumed run another one."""
    problems = [
        Problem(key=key, value=new, message=f"the run was started with {old!r}", fix="leave it, or start a new run")
        for key, (old, new) in changes(stored, wanted).items()
        if not may_change(key, use, deterministic=stored.run.deterministic)
    ]
    refuse(problems, provenance)
