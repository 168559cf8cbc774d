"""What a stage cost, or what it will: measured where it has run, else an estimate that says so.

A forward pass of P parameters takes 2P operations a token, training 6P (Kaplan et al. 2020, section 2.1). Attention over
the context is left out, so long contexts cost more than estimated; so are the evaluations in the course of a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from r1ray.config.lengths import longest_completion
from r1ray.config.rules import keeps_reference
from r1ray.errors import ConfigError
from r1ray.models.folder import read_shape
from r1ray.recipe.lineage import LINEAGE, Lineage
from r1ray.recipe.preflight import root
from r1ray.recipe.records import Recipe
from r1ray.recipe.stage_status import StageStatus
from r1ray.recipe.tasks import Task

FORWARD, TRAINING = 2, 6
PEAK_FLOPS = 989e12
"""Of one H100 or H800 in bfloat16, dense: NVIDIA's data sheet."""
GENERATION_SHARE = 0.1
TRAINING_SHARE = 0.35
MEAN_SHARE = 1 / 3
"""Mean length over longest length, where a recipe says nothing of it."""

ASSUMPTIONS = (
    f"~ marks an estimate: {FORWARD}P operations a generated and {TRAINING}P a trained token, P parameters; a GPU reaches "
    f"{GENERATION_SHARE:.0%} of {PEAK_FLOPS / 1e12:.0f} TFLOP/s generating and {TRAINING_SHARE:.0%} training; completions "
    "are a third of the longest where the recipe expects nothing else."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one stage. Producer: `costs`. Consumer: plan."""

    seconds: float | None = None  # wall time
    measured: bool = False  # by this very stage
    gpu_hours: float | None = None  # estimate
    generated: int | None = None  # tokens
    trained: int | None = None  # tokens


def costs(recipe: Recipe, tasks: tuple[Task, ...], standings: Mapping[str, StageStatus]) -> dict[str, Cost]:
    """The cost of each stage by name; what cannot be known is None."""
    models = _Models(recipe, tasks)
    return {task.name: _cost(task, standings[task.name], models) for task in tasks}


def _cost(task: Task, standing: StageStatus, models: _Models) -> Cost:
    if standing.state == "done" and standing.lineage is not None:
        return Cost(seconds=standing.lineage.seconds, measured=True)
    generated, trained = _generated(task), _trained(task)
    seconds = task.stage.expect.seconds
    for earlier in _earlier(task):
        seconds = earlier.seconds
    return Cost(
        seconds=seconds,
        gpu_hours=_gpu_hours(task, models.parameters(task), generated, trained),
        generated=generated,
        trained=trained,
    )


def _gpu_hours(task: Task, parameters: float | None, generated: int | None, trained: int | None) -> float | None:
    if parameters is None or (generated is None and trained is None):
        return None
    config = task.config
    if config is not None and config.learner.num_gpus == 0 and config.rollout.num_gpus == 0:
        return None
    passes = float(TRAINING)
    if task.kind.name == "rl" and config is not None:
        passes += FORWARD * (keeps_reference(config) + (config.algorithm.importance == "decoupled"))
    generation = FORWARD * parameters * (generated or 0) / GENERATION_SHARE
    return (generation + passes * parameters * (trained or 0) / TRAINING_SHARE) / PEAK_FLOPS / 3600


def _generated(task: Task) -> int | None:
    """Tokens to generate, in all."""
    config, expect = task.config, task.stage.expect
    if config is None or task.kind.name not in ("rl", "sample", "eval"):
        return None
    longest: int = longest_completion(config)
    samples: int | None = config.rollout.group_size
    if task.kind.name == "rl":
        prompts: int | None = config.run.steps * config.learner.groups_per_step
    elif task.kind.name == "sample":
        limits = [source.limit for source in config.data.train]
        prompts = expect.rows or (None if None in limits else sum(limit or 0 for limit in limits))
    else:
        prompts, longest = expect.rows, task.options.get("max_new_tokens", longest)
        samples = task.options.get("k", 1)  # without it each benchmark has its own, and `rows` counts samples
    if prompts is None or samples is None:
        return None
    return int(prompts * samples * (expect.tokens or longest * MEAN_SHARE))


def _trained(task: Task) -> int | None:
    """Tokens to train on, in all."""
    config, expect = task.config, task.stage.expect
    if task.kind.name == "rl":
        return _generated(task)
    if task.kind.name == "sft" and config is not None and expect.rows is not None:
        return int(config.sft.epochs * expect.rows * (expect.tokens or config.model.max_length * MEAN_SHARE))
    if task.kind.name == "reward_model" and expect.rows is not None and expect.tokens is not None:
        responses = 2 if task.options["kind"] == "pairwise" else 1
        return int(task.options.get("epochs", 1) * expect.rows * expect.tokens * responses)
    return None


def _earlier(task: Task) -> Iterator[Lineage]:
    """Lineages of the same stage that were set aside, oldest first."""
    folders = task.folder.parent.glob(f"{task.name}.*")
    numbered = sorted((int(f.suffix[1:]), f) for f in folders if f.suffix[1:].isdigit() and (f / LINEAGE).exists())
    for _, folder in numbered:
        if (lineage := Lineage.read(folder)) is not None:
            yield lineage


class _Models:
    """How large the model of each stage is."""

    def __init__(self, recipe: Recipe, tasks: tuple[Task, ...]) -> None:
        self._stated = {i.path: i.parameters for i in recipe.inputs.values() if i.parameters is not None}
        self._tasks = tasks

    def parameters(self, task: Task) -> float | None:
        """Of the model that the stage trains or samples from; None where it is not known before it is there."""
        folder = root(task, self._tasks) or task.output  # it makes what it gives out of nothing
        return self._stated.get(str(folder)) or _on_disk(folder)


def _on_disk(folder: Path) -> float | None:
    try:
        return float(read_shape(folder).parameters)
    except ConfigError:  # nothing is there yet
        return None
