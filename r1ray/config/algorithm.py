"""What the section `algorithm` may not be, together with the rollouts that it learns from. See `checks` for what a check is."""

from __future__ import annotations

from collections.abc import Iterator

from r1ray.config.problems import Problem, problem, value_at
from r1ray.config.rules import keeps_reference, learned_rewards
from r1ray.config.schema import Config

MADE_OF: dict[str, dict[str, tuple[str, str]]] = {
    "dr_grpo": {
        "algorithm.advantage": ("mean_only", "does not divide advantages by their standard deviation"),
        "algorithm.loss_aggregation": ("constant", "divides by a constant"),
    },
    "dapo": {"algorithm.loss_aggregation": ("token", "is a mean over tokens")},
    "gspo": {"algorithm.loss_aggregation": ("sequence", "has one ratio for each sequence")},
}
"""Loss -> what it is made of besides its own function: key -> (value, why)."""


def losses(config: Config) -> Iterator[Problem]:
    """A loss of a paper without the rest of what makes it that."""
    a = config.algorithm
    for key, (wanted, why) in MADE_OF.get(a.loss, {}).items():
        if value_at(config, key) != wanted:
            yield problem(config, key, f"does not go with algorithm.loss = {a.loss}, which {why}", wanted)
    if a.loss == "dapo" and a.clip_high <= a.clip_low:
        message = (
            f"is not above algorithm.clip_low = {a.clip_low:g}, but algorithm.loss = dapo clips higher above than below"
        )
        yield problem(config, "algorithm.clip_high", message, "0.28 with a clip_low of 0.2, as in the paper")


def groups(config: Config) -> Iterator[Problem]:
    """Groups of one completion, where completions are compared."""
    group, advantage = config.rollout.group_size, config.algorithm.advantage
    if group < 2 and advantage in ("group_norm", "mean_only", "leave_one_out"):
        message = f"leaves algorithm.advantage = {advantage} nothing to compare with: every advantage is zero"
        yield problem(config, "rollout.group_size", message, "at least 2")
    if group < 2 and config.algorithm.dynamic_sampling:
        message = "makes all rewards of a group equal, so algorithm.dynamic_sampling would drop every group for ever"
        yield problem(config, "rollout.group_size", message, "at least 2")


def importance(config: Config) -> Iterator[Problem]:
    """Ratios between log-probabilities that are not there, or not of the same thing."""
    a = config.algorithm
    if config.rollout.top_p < 1 and (a.importance == "behavior" or a.importance_correction != "none"):
        message = (
            "makes vLLM's log-probabilities those of the nucleus, while the learner's are those of the whole "
            "vocabulary, so every ratio between them would be wrong"
        )
        fix = "1.0, or algorithm.importance=decoupled algorithm.importance_correction=none"
        yield problem(config, "rollout.top_p", message, fix)
    if a.importance_correction != "none" and a.importance != "decoupled":
        message = "compares proximal with behaviour log-probabilities, but no proximal ones are computed"
        yield problem(config, "algorithm.importance_correction", message, "none, or algorithm.importance=decoupled")
    if a.importance_correction != "none" and a.loss == "gspo":
        message = "weighs single tokens, but algorithm.loss = gspo has one ratio for each sequence"
        yield problem(config, "algorithm.importance_correction", message, "none, or another algorithm.loss")


def references(config: Config) -> Iterator[Problem]:
    """What is said of a reference policy, or of rewards that models give, where there is none."""
    if config.algorithm.reference_refresh_steps is not None and not keeps_reference(config):
        message = (
            "replaces a reference that is not kept: algorithm.kl_coefficient is 0, hacking_monitor.max_kl is null, "
            "and no reward comes from a model"
        )
        yield problem(config, "algorithm.reference_refresh_steps", message, "null, or a coefficient above 0")
    if config.hacking_monitor.max_length_correlation is not None and not learned_rewards(config):
        message = "watches rewards that a model gives, and there are none"
        yield problem(config, "hacking_monitor.max_length_correlation", message, "null, or a reward `model` or `judge`")


ALGORITHM = (losses, groups, importance, references)
