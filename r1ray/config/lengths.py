"""How long a completion may get, as the run goes on (`rollout.length_schedule`)."""

from __future__ import annotations

from r1ray.config.schema import Config


def completion_limit(config: Config, index: int) -> int:
    """The most tokens of a completion of prompt `index`.

    The schedule counts in steps of `learner.groups_per_step` prompts, so that the limit is a function of the prompt alone:
    the same for whoever answers it, after any restart, and known to the learner without the completion.
    """
    limit = config.rollout.max_new_tokens
    for entry in config.rollout.length_schedule:
        if index >= entry.from_step * config.learner.groups_per_step:
            limit = entry.max_new_tokens
    return limit


def longest_completion(config: Config) -> int:
    """The most tokens of any completion of the run."""
    return max([config.rollout.max_new_tokens, *(entry.max_new_tokens for entry in config.rollout.length_schedule)])
