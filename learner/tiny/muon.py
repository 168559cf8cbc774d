"""Muon in float32: momentum, then the nearest semi-orthogonal matrix (https://kellerjordan.github.io/posts/muon/).

torch's own Muon does the Newton-Schulz iteration in bfloat16, which on CPUs without bfloat16 units takes three times as
long.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that Newton-Schulz iterates
_ITERATIONS = 5
_ADAM_RMS = 0.2
"""Root mean square of a typical AdamW update; Muon's is scaled to it, so that both share one learning rate
(arXiv 2502.16982, equation 4)."""


class Muon(torch.optim.Optimizer):
    """Updates matrices [rows, columns]; AdamW updates all other parameters."""

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> None:
        """One update from the gradients in place."""
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            for matrix in group["params"]:
                state = self.state[matrix]
                if not state:
                    state["momentum"] = torch.zeros_like(matrix)
                state["momentum"].lerp_(matrix.grad, 1 - group["momentum"])
                ahead = matrix.grad.lerp(state["momentum"], group["momentum"])  # Nesterov's look-ahead
                scale = _ADAM_RMS * max(matrix.shape) ** 0.5
                matrix.add_(orthogonal(ahead), alpha=-group["lr"] * scale)


def orthogonal(matrix: Tensor) -> Tensor:
    """About U V^T of the singular value decomposition U S V^T: singular values between 0.7 and 1.2 in place of S.

    Example: of the diagonal matrix (3, 0.1) the directions stay and the lengths become alike.
    """
    a, b, c = _COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x if wide is matrix else x.T
