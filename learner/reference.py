"""Reference policy of the KL term: a frozen copy of the policy of some version, or the base model of its adapters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from learner import zero_state
from learner.batch import PackedTokens
from learner.engine import Engine, gathered
from learner.experts import is_divided
from learner.lora import adapters_off
from learner.model import PolicyModel
from learner.parts import Part, whole


class BaseModel:
    """The reference of a policy with adapters: the same module without them, so that it needs no copy."""

    def __init__(self, engine: Engine) -> None:
        self._policy = engine

    def logprobs(self, tokens: PackedTokens) -> Tensor:
        """Log-probabilities float32 [T] of the completion tokens, at their sampling temperature. A collective."""
        with adapters_off(self._policy.module):
            logprobs_T, _ = self._policy.forward_only(tokens)
        result: Tensor = logprobs_T
        return result


class ReferencePolicy:
    """Computes log-probabilities under policy `version`. All methods are collectives.

    The copy is replicated on every rank, in the compute dtype; under ZeRO 3 it is partitioned like the policy itself.
    """

    def __init__(self, model: PolicyModel, engine: Engine, *, version: int) -> None:
        """`model`: the engine's module without values. It gets those of the engine's policy, which is `version`."""
        self.version = version
        self._policy = engine
        self._model: Any = engine.inference_copy(model)

    def logprobs(self, tokens: PackedTokens) -> Tensor:
        """Log-probabilities float32 [T] of the completion tokens, at their sampling temperature."""
        with torch.no_grad():
            logprobs_T, _ = self._model(tokens)
        return logprobs_T

    def refresh(self, version: int) -> None:
        """Copy the engine's present policy, which is `version`."""
        policy = dict(self._policy.module.named_parameters())
        for name, parameter in self.parameters():
            with gathered([policy[name]], self._policy.stage), gathered([parameter], self._policy.stage, write=True):
                parameter.data.copy_(policy[name].data)
        self.version = version

    def parts(self) -> list[Part]:
        """What this rank holds of the reference's parameters, in the compute dtype."""
        sharded = self._policy.stage == 3
        parts = [(_partition(n, p) if sharded else whole(n, p.data), p) for n, p in self.parameters()]
        return [self._policy.experts.place(part) if is_divided(p) else part for part, p in parts]

    def follow_parts(self, *, version: int) -> None:
        """Take over what was written to `parts`: the policy `version`."""
        if self._policy.stage == 3:
            for _, parameter in self.parameters():
                zero_state.release_gathered(parameter)
        self.version = version

    def parameters(self) -> list[tuple[str, Any]]:
        """(name, parameter), named as in the policy's module."""
        module = getattr(self._model, "module", self._model)
        return list(module.named_parameters())


def _partition(name: str, parameter: Any) -> Part:
    start, stop = zero_state.bounds(parameter)
    values = parameter.ds_tensor.data[: stop - start]
    return Part(
        name=name,
        shape=tuple(parameter.ds_shape),
        dtype=values.dtype,
        start=start,
        stop=stop,
        replicated=False,
        read=lambda: values,
        write=lambda first, new: values[first : first + len(new)].copy_(new),
    )
