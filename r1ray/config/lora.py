"""Checks of `model.lora`: what a run that trains adapters cannot have."""

from __future__ import annotations

from collections.abc import Iterator

from r1ray.config.problems import Problem, problem
from r1ray.config.schema import Config


def adapters(config: Config) -> Iterator[Problem]:
    """Find a list of targets that leaves nothing to train."""
    lora = config.model.lora
    if lora.rank is not None and not lora.targets:
        message = "is empty, so that nothing would be trained"
        yield problem(config, "model.lora.targets", message, "use at least one, such as [q_proj, v_proj]")


def adapters_keep_reference(config: Config) -> Iterator[Problem]:
    """Find a reference policy that would have to be a copy of weights."""
    if config.model.lora.rank is not None and config.algorithm.reference_refresh_steps is not None:
        message = "replaces the reference policy, which with model.lora.rank is always the base model"
        yield problem(config, "algorithm.reference_refresh_steps", message, "use null, or model.lora.rank=null")


def no_adapters(config: Config) -> Iterator[Problem]:
    """Find adapters in the training of a reward model."""
    if config.model.lora.rank is not None:
        message = "adds adapters, but a reward model is trained as a whole: its head is new and not in an adapter"
        yield problem(config, "model.lora.rank", message, "use null")
