"""The objective of policy optimisation: one packed micro-batch in, its share of the loss out.

    loss = sum over trained tokens of  weight * (correction * policy loss + kl * k3 - entropy coefficient * entropy)

`weight` holds the global denominator; policy loss, correction and advantage are chosen by name in the configuration.
Shapes: T completion tokens of the micro-batch, S its sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from learner.batch import MicroBatch
from learner.importance import CORRECTIONS
from learner.losses import LossInput, kl_k3, token_weights
from learner.metrics import MetricSums
from learner.plugins import load_policy_loss
from r1ray.config.lengths import longest_completion
from r1ray.config.schema import Config

MEANS = (
    "train/loss", "train/entropy", "train/kl", "train/clip_fraction", "train/ratio_mean", "train/correction",
    "staleness/log_ratio", "staleness/kl", "mismatch/mean", "mismatch/tokens",
)  # fmt: skip
MAXIMA = ("mismatch/max",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Denominators:
    """How much is trained on in a whole minibatch, over all ranks."""

    tokens: int
    sequences: int


class PolicyObjective:
    """Loss of a micro-batch; what it observes on the way goes into `MetricSums`."""

    def __init__(self, config: Config) -> None:
        self._algorithm = config.algorithm
        self._max_new_tokens = longest_completion(config)
        self._policy_loss = load_policy_loss(config.algorithm.loss)
        self._correction = CORRECTIONS[config.algorithm.importance_correction]

    def loss(
        self,
        model: Callable[..., Any],
        batch: MicroBatch,
        denominators: Denominators,
        sums: MetricSums,
        *,
        unchanged_version: int | None,
    ) -> Tensor:
        """This micro-batch's share of the minibatch's loss, a scalar with gradient.

        `unchanged_version`: which policy the model is, if no optimiser step has changed it since it was published.
        """
        a = self._algorithm
        logprobs_T, entropy_T = model(batch.tokens)
        if unchanged_version is not None:
            compare_with_behavior(logprobs_T.detach(), batch, unchanged_version, sums)
        correction_T, old_T = self._baselines(logprobs_T, batch)
        policy = self._policy_loss(
            LossInput(
                logprobs_T=logprobs_T,
                old_logprobs_T=old_T,
                advantages_T=batch.advantages_T,
                segment_T=batch.tokens.segment_T,
                lengths_S=batch.tokens.lengths_S,
                clip_low=a.clip_low,
                clip_high=a.clip_high,
            )
        )
        trained_T = batch.trained_S[batch.tokens.segment_T]
        counted_T = trained_T * batch.represents_S[batch.tokens.segment_T]  # for metrics, not for the loss
        weight_T = self._weights(batch, denominators)[batch.tokens.segment_T] * trained_T
        value_T = correction_T * policy.loss_T
        if batch.reference_logprobs_T is not None:
            trains = a.kl_coefficient > 0  # else it is only watched
            kl_T = kl_k3(logprobs_T if trains else logprobs_T.detach(), batch.reference_logprobs_T)
            if trains:
                value_T = value_T + a.kl_coefficient * kl_T
            sums.add("train/kl", (kl_T.detach() * counted_T).sum(), counted_T.sum())
        if a.entropy_coefficient:
            value_T = value_T - a.entropy_coefficient * entropy_T
        loss = (weight_T * value_T).sum()
        sums.add("train/loss", loss.detach(), 0)
        observed = {"entropy": entropy_T.detach(), "clip_fraction": policy.clipped_T, "ratio_mean": policy.ratio_T}
        if a.importance_correction != "none":
            observed["correction"] = correction_T
        for name, observed_T in observed.items():
            sums.add(f"train/{name}", (observed_T * counted_T).sum(), counted_T.sum())
        return loss

    def _baselines(self, logprobs_T: Tensor, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """(weight of each token, log-probabilities that the ratio compares with)."""
        if self._algorithm.importance == "behavior":
            return torch.ones_like(batch.behavior_logprobs_T), batch.behavior_logprobs_T
        # Before the first optimiser step of a batch the proximal policy is the policy itself.
        proximal_T = logprobs_T.detach() if batch.proximal_logprobs_T is None else batch.proximal_logprobs_T
        return self._correction(proximal_T, batch.behavior_logprobs_T, self._algorithm.importance_cap), proximal_T

    def _weights(self, batch: MicroBatch, denominators: Denominators) -> Tensor:
        return token_weights(
            self._algorithm.loss_aggregation,
            batch.tokens.lengths_S,
            tokens=denominators.tokens,
            sequences=denominators.sequences,
            max_new_tokens=self._max_new_tokens,
        )


def compare_with_behavior(logprobs_T: Tensor, batch: MicroBatch, version: int, sums: MetricSums) -> None:
    """Compare learner and vLLM while the learner is policy `version`. Two metrics, by the policy that sampled a token.

    Tokens that this very policy sampled show the *mismatch* of the two implementations; those of older policies, or of
    another run, show *staleness* as well. Its KL is that of the present policy from the one that sampled.
    """
    if not batch.sequences:
        return
    gap_T = (logprobs_T - batch.behavior_logprobs_T).abs()
    kl_T = kl_k3(batch.behavior_logprobs_T, logprobs_T)
    same_T = batch.versions_T == version
    counted_T = batch.represents_S[batch.tokens.segment_T]
    compared = (
        ("mismatch/mean", gap_T, same_T),
        ("staleness/log_ratio", gap_T, ~same_T),
        ("staleness/kl", kl_T, ~same_T),
    )
    for name, value_T, chosen_T in compared:
        sums.add(name, (value_T * counted_T)[chosen_T].sum(), counted_T[chosen_T].sum())
    sums.add_max("mismatch/max", gap_T[same_T])
    sums.add("mismatch/tokens", same_T.sum(), 0)  # those compared, a sum
