"""Metrics of a training step: sums on the device, reduced over the ranks once, and metrics of the manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from learner.correlation import ROUNDING, correlation
from learner.engine import StepReport
from learner.packing import MinibatchPlan, packed_tokens
from r1ray.config.rules import LENGTH_CORRELATION
from r1ray.types import FOREIGN_POLICY, BatchManifest, ScoredGroup


class MetricSums:
    """Means and maxima of named quantities over all ranks.

    The names are fixed beforehand, so that every rank reduces the same vector. A mean over nothing is left out.
    Example: with means=["train/kl"], `add("train/kl", 1.5, 3)` on one rank and `add("train/kl", 0.5, 1)` on another,
    `reduce` returns {"train/kl": 0.5} and the counts {"train/kl": 4} on both.
    """

    def __init__(
        self, *, means: Sequence[str], maxima: Sequence[str], device: torch.device, counts: bool = True
    ) -> None:
        """`counts`: False if another rank adds the same values, so that this rank's are left out of the reduction."""
        self._counts = counts
        self._means = {name: i for i, name in enumerate(means)}
        self._maxima = {name: i for i, name in enumerate(maxima)}
        self._sums = torch.zeros(2, len(means), dtype=torch.float64, device=device)  # totals, counts
        self._largest = torch.full((len(maxima),), -torch.inf, dtype=torch.float64, device=device)

    def add(self, name: str, total: Tensor | float, count: Tensor | float) -> None:
        """Add `total`, a sum over `count` values, to the mean `name`."""
        self._sums[0, self._means[name]] += total
        self._sums[1, self._means[name]] += count

    def add_max(self, name: str, values: Tensor) -> None:
        """Include `values`, of any shape and possibly empty, in the maximum `name`."""
        if values.numel():
            i = self._maxima[name]
            self._largest[i] = torch.maximum(self._largest[i], values.max().double())

    def reduce(self, all_reduce: Callable[[Tensor, str], Tensor]) -> tuple[dict[str, float], dict[str, float]]:
        """(values, counts of the means) over all ranks. A collective."""
        if not self._counts:
            self._sums.zero_()
            self._largest.fill_(-torch.inf)
        totals, counts = all_reduce(self._sums, "sum").tolist()
        largest = all_reduce(self._largest, "max").tolist()
        values = {name: totals[i] / counts[i] for name, i in self._means.items() if counts[i]}
        values.update({name: largest[i] for name, i in self._maxima.items() if largest[i] > -torch.inf})
        return values, {name: counts[i] for name, i in self._means.items()}


class LengthRewardCorrelation:
    """Correlation of single rewards with completion length, both less their group's mean, over all ranks.

    The three sums of products that make up the correlation pass through `MetricSums` as means.
    """

    def __init__(self, rewards: Sequence[str]) -> None:
        self._rewards = rewards
        self.means = [f"{name}/{kind}" for name in rewards for kind in ("product", "reward", "length")]
        """Names of the means that `MetricSums` must have."""

    def add(self, group: ScoredGroup, completions: Sequence[int], sums: MetricSums) -> None:
        """Add these completions of a group. A reward that a score of the group lacks is left out."""
        lengths_G = np.array([len(c.token_ids) for c in group.rollout.completions], dtype=np.float64)
        y = (lengths_G - lengths_G.mean())[list(completions)]
        for name in self._rewards:
            if any(name not in score.parts for score in group.scores):
                continue
            rewards_G = np.array([score.parts[name] for score in group.scores])
            x = (rewards_G - rewards_G.mean())[list(completions)]
            for kind, product in (("product", x @ y), ("reward", x @ x), ("length", y @ y)):
                sums.add(f"{name}/{kind}", float(product), len(y))

    def pop(self, reduced: dict[str, float]) -> Mapping[str, float]:
        """The correlations, computed from the means in `reduced`, which are removed from it.

        A reward is left out if it or the length does not vary.
        """
        metrics = {}
        for name in self._rewards:
            found = [reduced.pop(f"{name}/{kind}", 0.0) for kind in ("product", "reward", "length")]
            if min(found[1:]) > ROUNDING**2:
                metrics[f"{LENGTH_CORRELATION}/{name}"] = float(
                    np.clip(found[0] / np.sqrt(found[1] * found[2]), -1.0, 1.0)
                )
        return metrics


def manifest_metrics(manifest: BatchManifest) -> dict[str, float]:
    """Metrics of a batch that need no payloads.

    `reward/std` is the standard deviation within groups, averaged over groups: zero means that nothing can be learned.
    Lengths are in tokens, `staleness/*` in policy versions: groups of a recorded run have none.
    """
    rewards = [np.array(g.rewards, dtype=np.float64) for g in manifest.groups]
    lengths = np.concatenate([g.completion_tokens for g in manifest.groups])
    ages = [manifest.step - g.min_policy_version for g in manifest.groups if g.min_policy_version != FOREIGN_POLICY]
    prompts = sum(g.prompt_tokens * len(g.completion_tokens) for g in manifest.groups)
    # Centred within groups: hard prompts get long completions and low rewards, which would hide the rest.
    centred = np.concatenate([r - r.mean() for r in rewards])
    centred_lengths = np.concatenate(
        [np.asarray(g.completion_tokens) - np.mean(g.completion_tokens) for g in manifest.groups]
    )
    with_length = correlation(centred, centred_lengths)
    return {
        **({} if with_length is None else {LENGTH_CORRELATION: with_length}),
        "reward/mean": float(np.concatenate(rewards).mean()),
        "reward/std": float(np.mean([r.std() for r in rewards])),
        "length/mean": float(lengths.mean()),
        "length/max": float(lengths.max()),
        **({"staleness/mean": float(np.mean(ages)), "staleness/max": float(max(ages))} if ages else {}),
        "batch/tokens": float(lengths.sum() + prompts),
    }


def plan_metrics(plans: Sequence[MinibatchPlan]) -> dict[str, float]:
    """Packed rows over all ranks, and the share of completions that a sample represents."""
    micro_batches = [refs for plan in plans for rank in plan.micro_batches for refs in rank]
    packed = sum(len(refs) for refs in micro_batches)
    left_out = sum(len(ref.stands_for) for refs in micro_batches for ref in refs)
    return {
        "batch/packed_tokens": float(sum(packed_tokens(refs) for refs in micro_batches)),
        "batch/left_out": left_out / (packed + left_out),
    }


def optimizer_metrics(reports: Sequence[StepReport], lr: float) -> dict[str, float]:
    """Learning rate, number of skipped optimizer steps, and the mean gradient norm of the others, if there are any."""
    norms = [r.grad_norm for r in reports if r.applied]
    metrics = {"train/lr": lr, "train/skipped": float(len(reports) - len(norms))}
    return {**metrics, "train/grad_norm": float(np.mean(norms))} if norms else metrics
