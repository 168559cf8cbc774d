"""Pretraining of the embedded base model: one pass over the corpus, loss on the responses only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from learner.batch import PackedTokens, pack_tokens
from learner.model import PolicyModel
from learner.tiny.muon import Muon
from learner.tiny.tokenizer import TokenDocument
from r1ray.errors import NumericError

CPU = torch.device("cpu")

Progress = Callable[[int, int, float], None]
"""(completed steps, all steps, loss in nats per response token); called after each step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Length and learning rate of pretraining. The rate depends on steps, not on time: builds are reproducible."""

    steps: int
    per_step: int = 32  # documents
    lr: float = 6e-3
    warmup_steps: int = 30
    constant_share: float = 0.5  # of all steps; from there the rate falls linearly
    final_share: float = 0.02  # of `lr`, after the last step

    def rate(self, step: int) -> float:
        """The learning rate of step `step`, from 0."""
        turn = self.constant_share * self.steps
        fallen = max(0.0, step - turn) / (self.steps - turn)
        return self.lr * min(1.0, (step + 1) / self.warmup_steps) * (1 - (1 - self.final_share) * fallen)


def pretrain(model: PolicyModel, corpus: Sequence[TokenDocument], schedule: Schedule, progress: Progress) -> float:
    """Train `model` in place on `steps * per_step` documents and return the last loss.

    Raises NumericError if the loss is not finite.
    """
    muon, adamw = _optimizers(model, schedule.lr)
    value = float("nan")
    for step in range(schedule.steps):
        batch = pack(corpus[step * schedule.per_step : (step + 1) * schedule.per_step])
        logprob_T, _ = model(batch)
        loss = -logprob_T.mean()
        loss.backward()
        for optimizer in (muon, adamw):
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            optimizer.step()
            optimizer.zero_grad()
        if not np.isfinite(value := loss.item()):
            raise NumericError(
                f"the loss of pretraining step {step} is {value}: build the embedded model with another seed"
            )
        progress(step + 1, schedule.steps, value)
    return value


def pack(documents: Sequence[TokenDocument]) -> PackedTokens:
    """The documents as one packed row, each attending to itself only."""
    return pack_tokens([d.prompt for d in documents], [d.response for d in documents], [1.0] * len(documents), CPU)


def _optimizers(model: nn.Module, lr: float) -> tuple[Muon, torch.optim.AdamW]:
    """Muon for the matrices of the layers; AdamW for the embedding (also the head), the norms and the biases."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and ".layers." in name else rest).append(parameter)
    return Muon(matrices, lr), torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
