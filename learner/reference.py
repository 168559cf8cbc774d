"""Reference policy of the KL term: a frozen copy of the policy of some version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from learner.batch import PackedTokens
from learner.engine import Engine, gathered
from learner.model import PolicyModel


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

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """(name, complete tensor) in the compute dtype; valid until the next is requested. Iterate to the end."""
        for name, parameter in self.parameters():
            with gathered([parameter], self._policy.stage):
                yield name, parameter.data

    def load_state(self, state: Iterable[tuple[str, Tensor]], *, version: int) -> None:
        """Load the result of `state`."""
        parameters = dict(self.parameters())
        for name, value in state:
            with gathered([parameters[name]], self._policy.stage, write=True):
                parameters[name].data.copy_(value)
        self.version = version

    def parameters(self) -> list[tuple[str, Any]]:
        """(name, parameter), named as in the policy's module."""
        module = getattr(self._model, "module", self._model)
        return list(module.named_parameters())
