"""The policy losses: pure functions of log-probabilities and advantages, one value a token, chosen by name.

Shapes: T completion tokens of a micro-batch (those of all its sequences in a row), S sequences in it.
Reducing the values to one number is `token_weights`' business: its denominators are counts over the *whole* minibatch, on
all ranks, so that the gradient does not depend on how the minibatch was cut into ranks and micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # only tensor methods are used, so that the names need no torch
    from torch import Tensor

Aggregation = Literal["token", "sequence", "constant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossInput:
    """What a policy loss looks at."""

    logprobs_T: Tensor  # under the policy in training; carries the gradient
    old_logprobs_T: Tensor  # under the policy that the ratio compares with
    advantages_T: Tensor  # of the token's sequence
    segment_T: Tensor  # int64: which of the S sequences the token belongs to
    lengths_S: Tensor  # completion tokens of each sequence
    clip_low: float
    clip_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLoss:
    """What a policy loss answers."""

    loss_T: Tensor
    ratio_T: Tensor  # no gradient
    clipped_T: Tensor  # bool: the clip took this token's gradient away (cispo: bounded its weight)


PolicyLoss = Callable[[LossInput], TokenLoss]


def _clipped(x: LossInput, ratio_T: Tensor) -> TokenLoss:
    """-min(ratio * A, clip(ratio) * A), the pessimistic surrogate of PPO (arXiv 1707.06347, eq. 7)."""
    free_T = ratio_T * x.advantages_T
    bounded_T = ratio_T.clamp(1.0 - x.clip_low, 1.0 + x.clip_high) * x.advantages_T
    return TokenLoss(
        loss_T=-free_T.minimum(bounded_T), ratio_T=ratio_T.detach(), clipped_T=(bounded_T < free_T).detach()
    )


def grpo(x: LossInput) -> TokenLoss:
    """Token-wise clipped surrogate: GRPO (arXiv 2402.03300, eq. 3).

    Dr. GRPO (arXiv 2503.20783) and DAPO (arXiv 2503.14476, eq. 8) keep this function and change what stands around it:
    the first the advantage and the denominator, the second the upper clip and the denominator (see `r1ray/config/algorithm.py`).
    """
    return _clipped(x, (x.logprobs_T - x.old_logprobs_T).exp())


def gspo(x: LossInput) -> TokenLoss:
    """Clipped surrogate of the length-normalised ratio of whole sequences: GSPO (arXiv 2507.18071, eq. 5 and 7).

    Every token of a sequence gets the sequence's value; `sequence` aggregation makes their sum its mean over sequences.
    """
    log_ratio_T = x.logprobs_T - x.old_logprobs_T
    sums_S = log_ratio_T.new_zeros(len(x.lengths_S)).index_add(0, x.segment_T, log_ratio_T)
    ratio_S = (sums_S / x.lengths_S).exp()
    return _clipped(x, ratio_S[x.segment_T])


def cispo(x: LossInput) -> TokenLoss:
    """REINFORCE weighted by the clipped ratio, which is a constant: no token loses its gradient.

    CISPO of MiniMax-M1 (arXiv 2506.13585, eq. 4 and 5). `clip_low` of 1 or more means no lower bound, as in the paper.
    """
    ratio_T = (x.logprobs_T - x.old_logprobs_T).exp().detach()
    weight_T = ratio_T.clamp(1.0 - x.clip_low, 1.0 + x.clip_high)
    return TokenLoss(loss_T=-weight_T * x.advantages_T * x.logprobs_T, ratio_T=ratio_T, clipped_T=weight_T != ratio_T)


LOSSES: dict[str, PolicyLoss] = {"grpo": grpo, "dr_grpo": grpo, "dapo": grpo, "gspo": gspo, "cispo": cispo}


def kl_k3(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """r - log r - 1 with r = reference / policy: a non-negative, unbiased, low-variance estimate of KL(policy || reference)
    for tokens of the policy. Schulman, "Approximating KL divergence" (2020), k3; used so in arXiv 2402.03300, eq. 4."""
    log_r_T = reference_logprobs_T - logprobs_T
    return log_r_T.exp() - log_r_T - 1.0


def token_weights(
    aggregation: Aggregation, lengths_S: Tensor, *, tokens: int, sequences: int, max_new_tokens: int
) -> Tensor:
    """The weight [S] of every token of each sequence, such that loss = sum over tokens of weight * value.

    `tokens` and `sequences` count what is trained on in the whole minibatch, over all ranks.
    token: mean over tokens (DAPO, arXiv 2503.14476). sequence: mean over sequences of the mean over tokens (GRPO,
    arXiv 2402.03300). constant: sum over tokens, divided by sequences * max_new_tokens (Dr. GRPO, arXiv 2503.20783).
    """
    if aggregation == "token":
        return lengths_S.new_full(lengths_S.shape, 1.0 / tokens)
    if aggregation == "sequence":
        return 1.0 / (lengths_S * sequences)
    return lengths_S.new_full(lengths_S.shape, 1.0 / (sequences * max_new_tokens))
