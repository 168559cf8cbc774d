"""Section `algorithm`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from r1ray.config.annotations import Doc, Importable, Range


@dataclass
class AlgorithmConfig:
    """The policy-gradient algorithm; see docs/algorithms.md."""

    loss: Annotated[str, Importable(("grpo", "dr_grpo", "dapo", "gspo", "cispo")), Doc("policy loss")] = "grpo"
    advantage: Annotated[
        str, Importable(("group_norm", "mean_only", "leave_one_out", "reinforce_pp")), Doc("advantage estimator")
    ] = "group_norm"
    loss_aggregation: Annotated[
        Literal["token", "sequence", "constant"],
        Doc("mean over tokens, mean over sequences, or division by max_new_tokens (dr_grpo)"),
    ] = "token"
    clip_low: Annotated[
        float, Range(gt=0), Doc("the ratio is clipped below at 1 - clip_low; a value >= 1 disables the lower clip")
    ] = 0.2
    clip_high: Annotated[float, Range(gt=0), Doc("the ratio is clipped above at 1 + clip_high")] = 0.2
    kl_coefficient: Annotated[
        float,
        Range(ge=0),
        Doc(
            "weight of the KL divergence to the reference policy; at 0 no reference is kept, unless "
            "hacking_monitor.max_kl is set or a reward comes from a model"
        ),
    ] = 0.0
    reference_refresh_steps: Annotated[
        int | None, Range(ge=1), Doc("null: the reference stays the first policy; n: replace it every n steps")
    ] = None
    importance: Annotated[
        Literal["behavior", "decoupled"],
        Doc("ratio to vLLM's log-probabilities, or to recomputed proximal ones"),
    ] = "behavior"
    importance_correction: Annotated[
        Literal["none", "truncated", "masked"],
        Doc("weighting of tokens by proximal over behaviour probability; needs importance: decoupled"),
    ] = "none"
    importance_cap: Annotated[
        float,  # at 1 `masked` would leave no token
        Range(gt=1),
        Doc("truncated: upper bound of the weight; masked: tokens with a weight outside [1/cap, cap] are left out"),
    ] = 2.0
    routing: Annotated[
        Literal["ignore", "compare", "replay"],
        Doc(
            "experts that vLLM's routers chose in a mixture of experts: not recorded; recorded for every 16th token "
            "and compared with the learner's (mismatch/routing); or recorded for all and used by the learner"
        ),
    ] = "ignore"
    entropy_coefficient: Annotated[float, Range(ge=0), Doc("weight of the entropy bonus")] = 0.0
    dynamic_sampling: Annotated[bool, Doc("drop groups whose rewards are all equal, and replace them")] = False
    overlong_buffer_tokens: Annotated[
        int, Range(ge=0), Doc("soft overlong penalty over the last N tokens before max_new_tokens; 0: off")
    ] = 0
    overlong_penalty: Annotated[float, Range(ge=0), Doc("the penalty at max_new_tokens")] = 1.0
    mask_truncated: Annotated[bool, Doc("leave completions that were cut at max_new_tokens out of the loss")] = False
