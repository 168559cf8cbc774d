"""Policy losses: pure functions of log-probabilities and advantages that give one value per token, chosen by name.

Shapes: T completion tokens of a micro-batch, those of all its sequences one after the other; S sequences in it.
`token_weights` reduces the values to one number. Its denominators are counts over the *whole* minibatch, on all ranks,
so that the gradient does not depend on how the minibatch is divided into ranks and micro-batches.
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
    """Input of a policy loss. Producer: PolicyObjective. Raises ValueError if the shapes do not agree."""

    logprobs_T: Tensor  # float32, under the policy in training; carries the gradient
    old_logprobs_T: Tensor  # float32, under the policy that the ratio compares with
    advantages_T: Tensor  # float32, of the token's sequence
    segment_T: Tensor  # int64, 0 to S - 1: the sequence that the token belongs to
    lengths_S: Tensor  # float32: completion tokens of each sequence
    clip_low: float
    clip_high: float

    def __post_init__(self) -> None:
        shape = self.logprobs_T.shape
        for name in ("old_logprobs_T", "advantages_T", "segment_T"):
            found = getattr(self, name).shape
            if len(shape) != 1 or found != shape:
                raise ValueError(f"{name}: expected the shape [T] of logprobs_T, {tuple(shape)}, got {tuple(found)}")
        if self.lengths_S.ndim != 1:
            raise ValueError(f"lengths_S: expected one dimension, got the shape {tuple(self.lengths_S.shape)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLoss:
    """Result of a policy loss. Consumer: PolicyObjective, which weights and sums `loss_T`."""

    loss_T: Tensor  # float32, carries the gradient
    ratio_T: Tensor  # float32, a metric, no gradient
    clipped_T: Tensor  # bool, a metric: clipping removed this token's gradient (cispo: bounded its weight)


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

    Dr. GRPO (arXiv 2503.20783) and DAPO (arXiv 2503.14476, eq. 8) use this function too. The first changes the
    advantage and the denominator, the second the upper clip and the denominator (see `r1ray/config/algorithm.py`).
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
    """REINFORCE weighted by the clipped ratio: CISPO of MiniMax-M1 (arXiv 2506.13585, eq. 4 and 5).

    The weight is a constant, so no token loses its gradient. `clip_low` >= 1 means no lower bound, as in the paper.
    """
    ratio_T = (x.logprobs_T - x.old_logprobs_T).exp().detach()
    weight_T = ratio_T.clamp(1.0 - x.clip_low, 1.0 + x.clip_high)
    return TokenLoss(loss_T=-weight_T * x.advantages_T * x.logprobs_T, ratio_T=ratio_T, clipped_T=weight_T != ratio_T)


LOSSES: dict[str, PolicyLoss] = {"grpo": grpo, "dr_grpo": grpo, "dapo": grpo, "gspo": gspo, "cispo": cispo}
"""Built-in losses by name; `learner.plugins.load_policy_loss` also takes a function of the user's."""


def kl_k3(logprobs_T: Tensor, reference_logprobs_T: Tensor) -> Tensor:
    """r - log r - 1 with r = reference / policy, for tokens that the policy sampled; float32 [T].

    A non-negative, unbiased, low-variance estimate of KL(policy || reference): k3 of Schulman, "Approximating KL
    divergence" (2020), used in arXiv 2402.03300, eq. 4.
    """
    log_r_T = reference_logprobs_T - logprobs_T
    return log_r_T.exp() - log_r_T - 1.0


def token_weights(
    aggregation: Aggregation, lengths_S: Tensor, *, tokens: int, sequences: int, max_new_tokens: int
) -> Tensor:
    """The weight of every token of each sequence, float32 [S], such that loss = sum over tokens of weight * value.

    `lengths_S` [S] are completion tokens; `tokens` and `sequences` count what the whole minibatch trains on, over all
    ranks.

    - token: mean over tokens (DAPO, arXiv 2503.14476)
    - sequence: mean over sequences of the mean over tokens (GRPO, arXiv 2402.03300)
    - constant: sum over tokens / (sequences * max_new_tokens) (Dr. GRPO, arXiv 2503.20783)
    """
    if aggregation == "token":
        return lengths_S.new_full(lengths_S.shape, 1.0 / tokens)
    if aggregation == "sequence":
        return 1.0 / (lengths_S * sequences)
    return lengths_S.new_full(lengths_S.shape, 1.0 / (sequences * max_new_tokens))
