"""An advantage of your own: distance from the group's median, which one extreme reward does not move.

Use it by its import path (examples/own_algorithm.yaml):

    algorithm: {advantage: "own_advantage:median_mad"}
"""

import numpy as np
import numpy.typing as npt

SMALLEST_SCALE = 0.5  # if most rewards of a group are equal, their median absolute deviation is zero


def median_mad(rewards_G: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (r - median) / scale for the rewards [G] of one group.

    The scale is the median absolute deviation, times 1.4826 to equal the standard deviation of a
    normal distribution.
    """
    centred_G = rewards_G - np.median(rewards_G)
    scale = 1.4826 * np.median(np.abs(centred_G))
    return centred_G / max(scale, SMALLEST_SCALE)
