"""User-defined losses and advantages, named by import path: `module:function`.

Both are pure functions of their argument. They are called once when they are loaded, with a small example, so that a
wrong signature or result stops a run before it starts; the shapes of their results are checked at every call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from learner.advantages import ADVANTAGES, Advantage, FloatArray
from learner.losses import LOSSES, LossInput, PolicyLoss, TokenLoss
from r1ray.errors import ConfigError
from r1ray.util.imports import load_object

if TYPE_CHECKING:
    from torch import Tensor


def load_advantage(name: str) -> Advantage:
    """The advantage of `algorithm.advantage`: a built-in name, or a function `(rewards_G) -> advantages_G`.

    A user-defined function gets the rewards of one group, float64 [G], and returns as many finite numbers. Raises
    ConfigError if it cannot be imported or breaks that contract, now or at a later call.
    """
    if name in ADVANTAGES:
        return ADVANTAGES[name]
    what = f"algorithm.advantage {name}"
    function = _load_function(name, "algorithm.advantage", argument="rewards_G")

    def advantages(rewards_B_G: Sequence[FloatArray]) -> list[FloatArray]:
        return [_checked_advantages(what, function(r_G.copy()), len(r_G)) for r_G in rewards_B_G]

    # All rewards equal is the usual case of a division by zero.
    _try(what, lambda: advantages([np.array([0.0, 1.0, 1.0, 0.5]), np.ones(3)]))
    return advantages


def load_policy_loss(name: str) -> PolicyLoss:
    """The loss of `algorithm.loss`: a built-in name, or a function `(x: LossInput) -> TokenLoss`.

    Raises ConfigError if a user-defined function cannot be imported or breaks the contract of `TokenLoss`, now or at a
    later call.
    """
    if name in LOSSES:
        return LOSSES[name]
    what = f"algorithm.loss {name}"
    function = _load_function(name, "algorithm.loss", argument="x: LossInput")

    def policy_loss(x: LossInput) -> TokenLoss:
        return _checked_loss(what, function(x), x)

    _try(what, lambda: _differentiate(what, policy_loss))
    return policy_loss


def _load_function(path: str, key: str, *, argument: str) -> Callable[[Any], Any]:
    """Import `path`. Raises ConfigError unless it is a function that can be called with one argument."""
    function = load_object(path, what=key)
    if not callable(function):
        raise ConfigError(f"{key} {path}: expected a function, got {function!r:.80}")
    signature = inspect.signature(function)
    try:
        signature.bind(None)
    except TypeError as e:
        raise ConfigError(f"{key} {path}: expected the signature ({argument}), got {signature}: {e}") from e
    loaded: Callable[[Any], Any] = function
    return loaded


def _try(what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except ConfigError:
        raise
    except Exception as e:  # a user's function may raise anything
        raise ConfigError(f"{what} failed on an example: {type(e).__name__}: {e}") from e


def _checked_advantages(what: str, result: Any, size: int) -> FloatArray:
    try:
        values = np.asarray(result, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise ConfigError(f"{what}: expected an array of {size} numbers, got {result!r:.80}") from e
    if values.shape != (size,):
        raise ConfigError(f"{what}: expected the shape ({size},), as the rewards have, got {values.shape}")
    if not np.isfinite(values).all():
        raise ConfigError(f"{what}: expected finite numbers, got {values.tolist()}")
    return values


def _checked_loss(what: str, result: Any, x: LossInput) -> TokenLoss:
    if not isinstance(result, TokenLoss):
        raise ConfigError(f"{what}: expected a learner.losses.TokenLoss, got {type(result).__name__}")
    shape = tuple(x.logprobs_T.shape)
    for field in ("loss_T", "ratio_T", "clipped_T"):
        found = getattr(result, field)
        found_shape = tuple(getattr(found, "shape", ())) if hasattr(found, "shape") else type(found).__name__
        if found_shape != shape:
            raise ConfigError(f"{what}: expected {field} of shape {shape}, as x.logprobs_T has, got {found_shape}")
    if result.ratio_T.requires_grad:
        raise ConfigError(f"{what}: ratio_T is a metric and must not carry a gradient: return ratio_T.detach()")
    return result


def _differentiate(what: str, policy_loss: PolicyLoss) -> None:
    """Call the loss on two sequences of three tokens in all. Raises ConfigError unless it gives a gradient."""
    import torch

    logprobs_T = torch.tensor([-0.5, -1.0, -2.0], requires_grad=True)
    x = LossInput(
        logprobs_T=logprobs_T,
        old_logprobs_T=torch.tensor([-0.6, -1.0, -1.5]),
        advantages_T=torch.tensor([1.0, 1.0, -1.0]),
        segment_T=torch.tensor([0, 0, 1]),
        lengths_S=torch.tensor([2.0, 1.0]),
        clip_low=0.2,
        clip_high=0.2,
    )
    loss_T: Tensor = policy_loss(x).loss_T
    if not loss_T.requires_grad:
        raise ConfigError(f"{what}: loss_T does not depend on x.logprobs_T, so there is no gradient")
    loss_T.sum().backward()
