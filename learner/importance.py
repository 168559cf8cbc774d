"""Importance weights: correct for tokens that another policy sampled than the one in the ratio.

In decoupled training (arXiv 2110.00641; for asynchronous RL of language models arXiv 2505.24298) the denominator of the
clipped ratio is the *proximal* policy, the learner's own before the update, and every token is weighted by
proximal / behaviour: the learner's log-probabilities against those that vLLM recorded.
Shapes: T completion tokens. No weight carries a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Correction = Callable[["Tensor", "Tensor", float], "Tensor"]


def none(proximal_T: Tensor, behavior_T: Tensor, cap: float) -> Tensor:
    """Weight 1: no correction."""
    return proximal_T.new_ones(proximal_T.shape)


def truncated(proximal_T: Tensor, behavior_T: Tensor, cap: float) -> Tensor:
    """min(w, cap): bounded variance for some bias. Truncated importance sampling (V-trace's rho, arXiv 1802.01561)."""
    return (proximal_T - behavior_T).exp().clamp(max=cap).detach()


def masked(proximal_T: Tensor, behavior_T: Tensor, cap: float) -> Tensor:
    """w within [1/cap, cap], zero outside: leaves out tokens on which the two disagree (IcePop, arXiv 2510.18855)."""
    weight_T = (proximal_T - behavior_T).exp().detach()
    return weight_T.where((weight_T >= 1.0 / cap) & (weight_T <= cap), weight_T.new_zeros(()))


CORRECTIONS: dict[str, Correction] = {"none": none, "truncated": truncated, "masked": masked}
