"""Advantages: from the rewards of a batch to one number for each completion.

NumPy only, so that every rank computes the same bits. Shapes: B groups in a batch, G completions in a group. A function
takes the rewards [G] of each of the B groups and returns as many arrays [G]. If all rewards of a group are equal, its
advantages are zero, not a rounding error (`reinforce_pp`: if all rewards of the batch are): the learner leaves out
completions whose advantage is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Advantage = Callable[[Sequence[FloatArray]], list[FloatArray]]

SMALLEST_STD = 1e-6
"""A standard deviation below this is rounding, not a difference between completions."""


def _scaled(centred: FloatArray, std: float) -> FloatArray:
    return centred / std if std > SMALLEST_STD else np.zeros_like(centred)


def _centred(r_G: FloatArray) -> FloatArray:
    """r - mean, where equal rewards give exactly zero: a mean of equal numbers may differ from them in the last bit."""
    return np.zeros_like(r_G) if r_G.min() == r_G.max() else r_G - r_G.mean()


def group_norm(rewards_B_G: Sequence[FloatArray]) -> list[FloatArray]:
    """(r - mean) / std within each group, std over all G (not G - 1): GRPO, arXiv 2402.03300 and 2501.12948."""
    return [_scaled(r_G - r_G.mean(), float(r_G.std())) for r_G in rewards_B_G]


def mean_only(rewards_B_G: Sequence[FloatArray]) -> list[FloatArray]:
    """r - mean within each group: Dr. GRPO, arXiv 2503.20783.

    The paper finds that dividing by the standard deviation favours prompts that are too easy or too hard.
    """
    return [_centred(r_G) for r_G in rewards_B_G]


def leave_one_out(rewards_B_G: Sequence[FloatArray]) -> list[FloatArray]:
    """r minus the mean of the *other* completions of its group, an unbiased baseline: RLOO, arXiv 2402.14740."""
    return [_centred(r_G) * (len(r_G) / (len(r_G) - 1)) for r_G in rewards_B_G]


def reinforce_pp(rewards_B_G: Sequence[FloatArray]) -> list[FloatArray]:
    """(r - mean) / std over the whole batch, regardless of groups: REINFORCE++, arXiv 2501.03262."""
    everything = np.concatenate(rewards_B_G)
    mean, std = everything.mean(), float(everything.std())
    return [_scaled(r_G - mean, std) for r_G in rewards_B_G]


ADVANTAGES: dict[str, Advantage] = {
    "group_norm": group_norm,
    "mean_only": mean_only,
    "leave_one_out": leave_one_out,
    "reinforce_pp": reinforce_pp,
}
"""Built-in advantages by name; `learner.plugins.load_advantage` also takes a function of the user's."""


def soft_overlong_penalty(
    lengths_G: npt.NDArray[np.int64], *, max_new_tokens: int, buffer_tokens: int, penalty: float
) -> FloatArray:
    """What to add to the rewards of long completions: DAPO's soft overlong punishment, arXiv 2503.14476, eq. 13.

    Zero up to `max_new_tokens - buffer_tokens`, then linear down to `-penalty` at `max_new_tokens`.
    Lengths and limits are in completion tokens.
    """
    into_buffer = lengths_G - (max_new_tokens - buffer_tokens)
    return -penalty * np.clip(into_buffer / buffer_tokens, 0.0, 1.0)
