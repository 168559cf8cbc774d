"""A policy loss of your own: PPO's clipped loss with a second clip for negative advantages.

Use it by its import path (examples/own_algorithm.yaml):

    algorithm: {loss: "own_loss:dual_clip"}
"""

from learner.losses import LossInput, TokenLoss

LARGEST_RATIO = 3.0


def dual_clip(x: LossInput) -> TokenLoss:
    """Bound the loss of negative advantages as if no ratio exceeded 3 (arXiv 1912.09729, eq. 5)."""
    ratio_T = (x.logprobs_T - x.old_logprobs_T).exp()
    free_T = ratio_T * x.advantages_T
    clipped_T = ratio_T.clamp(1.0 - x.clip_low, 1.0 + x.clip_high) * x.advantages_T
    surrogate_T = free_T.minimum(clipped_T)
    bounded_T = surrogate_T.maximum(LARGEST_RATIO * x.advantages_T)
    value_T = bounded_T.where(x.advantages_T < 0, surrogate_T)
    return TokenLoss(loss_T=-value_T, ratio_T=ratio_T.detach(), clipped_T=(value_T != free_T).detach())
