"""Checks of the section `algorithm` and of the rollouts that it learns from. See `checks` for what a check is."""

from __future__ import annotations

from collections.abc import Iterator

from r1ray.config.problems import Problem, problem, value_at
from r1ray.config.rules import keeps_reference, learned_rewards
from r1ray.config.schema import Config

LOSS_REQUIREMENTS: dict[str, dict[str, tuple[str, str]]] = {
    "dr_grpo": {
        "algorithm.advantage": ("mean_only", "does not divide advantages by their standard deviation"),
        "algorithm.loss_aggregation": ("constant", "divides by a constant"),
    },
    "dapo": {"algorithm.loss_aggregation": ("token", "is a mean over tokens")},
    "gspo": {"algorithm.loss_aggregation": ("sequence", "has one ratio for each sequence")},
}
"""Loss -> what else its paper specifies: key -> (value, reason)."""


def losses(config: Config) -> Iterator[Problem]:
    """Find losses without the other settings that their papers specify."""
    a = config.algorithm
    for key, (wanted, why) in LOSS_REQUIREMENTS.get(a.loss, {}).items():
        if value_at(config, key) != wanted:
            yield problem(config, key, f"does not fit algorithm.loss = {a.loss}, which {why}", f"use {wanted}")
    if a.loss == "dapo" and a.clip_high <= a.clip_low:
        message = f"is not above algorithm.clip_low = {a.clip_low:g}, but algorithm.loss = dapo raises the upper clip"
        yield problem(config, "algorithm.clip_high", message, "use 0.28 with a clip_low of 0.2, as in the paper")


def groups(config: Config) -> Iterator[Problem]:
    """Find groups of one completion if completions are compared within their group."""
    group, advantage = config.rollout.group_size, config.algorithm.advantage
    if group < 2 and advantage in ("group_norm", "mean_only", "leave_one_out"):
        message = f"leaves algorithm.advantage = {advantage} nothing to compare with: every advantage would be 0"
        yield problem(config, "rollout.group_size", message, "use at least 2")
    if group < 2 and config.algorithm.dynamic_sampling:
        message = "makes all rewards of a group equal, so that algorithm.dynamic_sampling would drop every group"
        yield problem(config, "rollout.group_size", message, "use at least 2")


def importance(config: Config) -> Iterator[Problem]:
    """Find ratios between log-probabilities that are missing or not comparable."""
    a = config.algorithm
    if config.rollout.top_p < 1 and (a.importance == "behavior" or a.importance_correction != "none"):
        message = (
            "makes vLLM's log-probabilities relative to the nucleus, but the learner's are relative to the whole "
            "vocabulary, so that every ratio between them would be wrong"
        )
        fix = "use 1.0, or algorithm.importance=decoupled algorithm.importance_correction=none"
        yield problem(config, "rollout.top_p", message, fix)
    if a.importance_correction != "none" and a.importance != "decoupled":
        message = "needs proximal log-probabilities, which algorithm.importance = behavior does not compute"
        yield problem(config, "algorithm.importance_correction", message, "use none, or algorithm.importance=decoupled")
    if a.importance_correction != "none" and a.loss == "gspo":
        message = "weights single tokens, but algorithm.loss = gspo has one ratio for each sequence"
        yield problem(config, "algorithm.importance_correction", message, "use none, or another algorithm.loss")


def references(config: Config) -> Iterator[Problem]:
    """Find settings of a reference policy, or of rewards from models, that the run does not have."""
    if config.algorithm.reference_refresh_steps is not None and not keeps_reference(config):
        message = (
            "replaces the reference policy, but the run keeps none: algorithm.kl_coefficient is 0, "
            "hacking_monitor.max_kl is null, and no reward comes from a model"
        )
        fix = "use null, or algorithm.kl_coefficient above 0"
        yield problem(config, "algorithm.reference_refresh_steps", message, fix)
    if config.hacking_monitor.max_length_correlation is not None and not learned_rewards(config):
        message = "applies to rewards from a model, and there are none"
        fix = "use null, or add a reward `model` or `judge`"
        yield problem(config, "hacking_monitor.max_length_correlation", message, fix)
    every = [r.name for r in config.rewards]
    evaluated = {name for source in config.data.evaluation for name in source.rewards or every}
    measured = {name for name in evaluated if name.partition("/")[0] not in ("accuracy", "format")}
    if unknown := sorted(config.hacking_monitor.max_heldout_fall.keys() - measured):
        message = f"names {', '.join(unknown)}, but data.evaluation measures no such reward beside accuracy and format"
        fix = f"use some of {', '.join(sorted(measured)) or 'none'}, or name the reward in a source's `rewards`"
        yield problem(config, "hacking_monitor.max_heldout_fall", message, fix)


def routing(config: Config) -> Iterator[Problem]:
    """Find rollout engines that cannot hand out the experts that their routers chose."""
    cached = config.rollout.engine.prefix_caching and not config.run.deterministic
    if config.algorithm.routing != "ignore" and config.rollout.num_gpus > 0 and not cached:
        message = "needs a prefix cache: vLLM hands out experts on GPUs only with one"
        fix = "use ignore, or rollout.engine.prefix_caching=true and run.deterministic=false"
        yield problem(config, "algorithm.routing", message, fix)


ALGORITHM = (losses, groups, importance, references, routing)
