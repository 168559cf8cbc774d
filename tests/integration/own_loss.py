"""A policy loss that a test can slow down."""

from __future__ import annotations

import os
import time
from pathlib import Path

from learner.losses import LossInput, TokenLoss, grpo

SLOW = "R1RAY_TEST_SLOW"
"""Environment variable with the path of a file. While that exists, each loss takes SLOW_S longer."""
SLOW_S = 0.5


def paced(x: LossInput) -> TokenLoss:
    """The loss of GRPO, at the pace that the test wants."""
    if Path(os.environ[SLOW]).exists():
        time.sleep(SLOW_S)
    return grpo(x)
