"""Limits of completions over the course of a run (`rollout.length_schedule`)."""

from __future__ import annotations

from r1ray.config.schema import Config


def completion_limit(config: Config, index: int) -> int:
    """Return the most tokens of a completion of prompt `index`.

    A step of the schedule is `learner.groups_per_step` prompts. The limit thus depends on the prompt alone: it is the
    same for every worker and after every restart, and the learner knows it without the completion.
    """
    limit = config.rollout.max_new_tokens
    for entry in config.rollout.length_schedule:
        if index >= entry.from_step * config.learner.groups_per_step:
            limit = entry.max_new_tokens
    return limit


def longest_completion(config: Config) -> int:
    """Return the most tokens of any completion of the run."""
    return max([config.rollout.max_new_tokens, *(entry.max_new_tokens for entry in config.rollout.length_schedule)])
