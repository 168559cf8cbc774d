"""The kinds of stages: the command of each, what it takes, where its output is, and how it goes on inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from r1ray.config.checks import Use

Value = Literal["text", "number", "whole", "texts", "map"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What stages of one kind have in common. Consumers: reading, tasks, standing, runner."""

    name: str
    command: tuple[str, ...]  # of r1ray
    use: Use | None = None  # what its configuration is for; None: it has none
    sections: tuple[str, ...] = ()  # of the configuration that decide what comes out
    options: Mapping[str, Value]  # of the command, with the type of each
    placing: tuple[str, ...] = ()  # options that say only how fast and where it goes
    needed: tuple[str, ...] = ()  # options that have no default
    output: str  # within the folder of the stage
    gives: Literal["model", "data", "results"]
    policy: bool = False  # whether its model is one to evaluate
    resumes: bool = False  # whether a killed stage goes on inside
    mark: str = "run.json"  # within the folder of the stage: where it is, there is something to go on with


_RL = ("run", "model", "data", "rewards", "rollout", "reward_worker", "queue", "algorithm", "learner", "evaluation")
_SAMPLE = ("run", "model", "data", "rewards", "rollout", "reward_worker", "sampling")

_EVAL_OPTIONS: dict[str, Value] = {
    "model": "text",
    "benchmarks": "texts",
    "k": "whole",
    "temperature": "number",
    "top_p": "number",
    "max_new_tokens": "whole",
    "limit": "whole",
    "data": "map",
    "against": "texts",
}
_REWARD_MODEL_OPTIONS: dict[str, Value] = {
    "data": "text",
    "model": "text",
    "kind": "text",
    "judge": "text",
    "epochs": "whole",
    "batch_size": "whole",
    "lr": "number",
    "max_length": "whole",
    "micro_batch_tokens": "whole",
    "held_out": "number",
    "dtype": "text",
}
_REWARD_MODEL_PLACING: dict[str, Value] = {
    "ranks": "whole",
    "zero_stage": "whole",
    "num_gpus": "number",
    "ray_address": "text",
    "deadline_s": "number",
    "checkpoint_steps": "whole",
}

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="tiny",
            command=("tiny",),
            options={"size": "text", "flavor": "text"},
            output="model",
            gives="model",
        ),
        Kind(
            name="tiny_data",
            command=("tiny-data",),
            options={"about": "text", "count": "whole"},
            needed=("about",),
            output="data.jsonl",
            gives="data",
        ),
        Kind(
            name="rl",
            command=("train",),
            use="train",
            sections=_RL,
            options={},
            output="final",
            gives="model",
            policy=True,
            resumes=True,
        ),
        Kind(
            name="sft",
            command=("sft",),
            use="sft",
            sections=("run", "model", "data", "learner", "sft"),
            options={},
            output="final",
            gives="model",
            policy=True,
            resumes=True,
        ),
        Kind(
            name="sample",
            command=("sample",),
            use="sample",
            sections=(*_SAMPLE, "curation"),
            options={},
            output="dataset",
            gives="data",
            resumes=True,
        ),
        Kind(
            name="reward_model",
            command=("reward-model", "train"),
            options=_REWARD_MODEL_OPTIONS | _REWARD_MODEL_PLACING,
            placing=tuple(_REWARD_MODEL_PLACING),
            needed=("data", "model", "kind"),
            output="model",
            gives="model",
            resumes=True,
            mark="model.checkpoints/training.json",
        ),
        Kind(
            name="eval",
            command=("eval",),
            use="eval",
            sections=_SAMPLE,
            options=_EVAL_OPTIONS,
            needed=("model", "benchmarks"),
            output="results.json",
            gives="results",
            resumes=True,
        ),
    )
}


def fits(value: Any, wanted: Value) -> bool:
    """Whether an option may have this value."""
    if wanted == "whole":
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if wanted == "texts":
        return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)
    if wanted == "map":
        return isinstance(value, dict) and all(isinstance(v, str) for pair in value.items() for v in pair)
    return isinstance(value, str) and bool(value)


def flags(options: Mapping[str, Any], *skip: str) -> Iterator[str]:
    """Options as words of the command line; a list or a map repeats its option."""
    for name, value in options.items():
        if name in skip:
            continue
        option = f"--{name.replace('_', '-')}"
        values = [f"{k}={v}" for k, v in value.items()] if isinstance(value, dict) else value
        for each in values if isinstance(values, list) else [values]:
            yield from (option, str(each))
