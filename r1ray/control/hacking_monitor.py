"""Warn about signs of reward hacking: a reward that grows with length, and a policy far from its reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from r1ray.config.rules import KL, LENGTH_CORRELATION, learned_rewards
from r1ray.config.schema import Config


class HackingWatch:
    """One warning when a metric has been above its bound for `hacking_monitor.consecutive_steps` steps; the next one
    only after it was below the bound again.

    Example, steps = 2 and max_kl = 0.1: a KL of 0.2, 0.3, 0.3, 0.05, 0.2, 0.2 warns at the second and at the last step.
    """

    def __init__(self, config: Config) -> None:
        settings = config.hacking_monitor
        self._steps = settings.consecutive_steps
        self._bounds: dict[str, float] = {}
        if settings.max_kl is not None:
            self._bounds[KL] = settings.max_kl
        if settings.max_length_correlation is not None:
            names = [f"{LENGTH_CORRELATION}/{name}" for name in learned_rewards(config)]
            self._bounds |= dict.fromkeys(names, settings.max_length_correlation)
        self._over: dict[str, int] = dict.fromkeys(self._bounds, 0)
        self._last = -1

    def step(self, metrics: Mapping[str, float], on_event: Callable[..., None]) -> None:
        """Check the metrics of a step. A metric that the step lacks (no sample of a source) is ignored."""
        if metrics["step"] <= self._last:  # after a rollback or resume: the steps are trained again
            self._over = dict.fromkeys(self._bounds, 0)
        self._last = int(metrics["step"])
        for name, bound in self._bounds.items():
            if name not in metrics:
                continue
            self._over[name] = self._over[name] + 1 if metrics[name] > bound else 0
            if self._over[name] == self._steps:
                on_event(
                    "reward_hacking", step=self._last, metric=name, value=metrics[name], bound=bound, steps=self._steps
                )
