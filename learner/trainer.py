"""One training step of policy optimisation on one rank.

    manifest --> advantages, plan --> fetch --> pack --> [reference, proximal] --> M optimiser steps --> metrics

Everything up to `fetch` is the same on every rank; everything behind it concerns this rank's sequences only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf

import numpy as np

from learner.assemble import Fetch, batch_advantages, denominators, fetch_groups, is_trained, make_sequence
from learner.batch import MicroBatch, make_micro_batch
from learner.correlation import LengthRewardCorrelation, correlation
from learner.engine import Engine, StepReport
from learner.objective import MAXIMA, MEANS, PolicyObjective
from learner.packing import MinibatchPlan, SequenceRef, plan_step
from learner.reference import ReferencePolicy
from learner.schedules import learning_rate
from learner.tally import Tally
from r1ray.config.rules import LENGTH_CORRELATION, learned_rewards
from r1ray.config.schema import Config
from r1ray.types import BatchManifest, ScoredGroup


class PolicyTrainer:
    """Trains the engine's policy on one manifest after the other. Every rank has one; `train_step` is a collective."""

    def __init__(
        self, config: Config, engine: Engine, reference: ReferencePolicy | None, *, rank: int, world_size: int
    ) -> None:
        self._config = config
        self._engine = engine
        self._reference = reference
        self._rank = rank
        self._world_size = world_size
        self._objective = PolicyObjective(config)
        self._reward_parts = [f"reward/part/{reward.name}" for reward in config.rewards]
        self._paid_length = LengthRewardCorrelation(learned_rewards(config))

    def train_step(self, manifest: BatchManifest, fetch: Fetch) -> dict[str, float]:
        """Train policy `manifest.step` into its successor; returns the step's metrics, the same on every rank."""
        started = time.perf_counter()
        means = [*MEANS, "length/truncated", *self._reward_parts, *self._paid_length.means]
        tally = Tally(means=means, maxima=MAXIMA, device=self._engine.device)
        learner = self._config.learner
        plans = plan_step(
            manifest,
            minibatches=learner.minibatches,
            ranks=self._world_size,
            micro_batch_tokens=learner.micro_batch_tokens,
        )
        minibatches = self._assemble(manifest, plans, fetch, tally)
        self._add_reference_and_proximal_logprobs(minibatches)
        lr = learning_rate(manifest.step, self._config.run.steps, learner.optimizer)
        reports = [
            self._optimizer_step(m, plan, micro_batches, manifest, lr, tally)
            for m, (plan, micro_batches) in enumerate(zip(plans, minibatches, strict=True))
        ]
        observed, counts = tally.reduce(self._engine.all_reduce)
        return {
            **manifest_metrics(manifest),
            **self._paid_length.take(observed),
            **observed,
            **step_metrics(reports, lr),
            "mismatch/tokens": counts["mismatch/mean"],
            "learner/step_s": time.perf_counter() - started,
        }

    def _assemble(
        self, manifest: BatchManifest, plans: SequenceOf[MinibatchPlan], fetch: Fetch, tally: Tally
    ) -> list[list[MicroBatch]]:
        mine = [plan.micro_batches[self._rank] for plan in plans]
        refs = [ref for micro_batches in mine for refs in micro_batches for ref in refs]
        advantages = batch_advantages(manifest, self._config)
        groups = fetch_groups(manifest, (ref.group for ref in refs), fetch)
        self._tally_rollouts(refs, groups, tally)

        def pack(refs: SequenceOf[SequenceRef]) -> MicroBatch:
            sequences = [
                make_sequence(
                    ref,
                    groups[ref.group],
                    float(advantages[ref.group][ref.completion]),
                    trained=is_trained(manifest.groups[ref.group], ref.completion, self._config),
                )
                for ref in refs
            ]
            return make_micro_batch(sequences, self._engine.device)

        return [[pack(refs) for refs in micro_batches] for micro_batches in mine]

    def _tally_rollouts(self, refs: SequenceOf[SequenceRef], groups: Mapping[int, ScoredGroup], tally: Tally) -> None:
        scores = [groups[ref.group].scores[ref.completion] for ref in refs]
        for name in self._reward_parts:
            key = name.removeprefix("reward/part/")
            values = [score.parts[key] for score in scores if key in score.parts]  # not every source has every reward
            tally.add(name, sum(values), len(values))
        for group in groups:
            self._paid_length.add(groups[group], [ref.completion for ref in refs if ref.group == group], tally)
        reasons = [groups[ref.group].rollout.completions[ref.completion].finish_reason for ref in refs]
        tally.add("length/truncated", reasons.count("length"), len(reasons))

    def _add_reference_and_proximal_logprobs(self, minibatches: SequenceOf[SequenceOf[MicroBatch]]) -> None:
        """Fill in the log-probabilities that must be those of before the first optimiser step."""
        for m, micro_batches in enumerate(minibatches):
            for batch in micro_batches:
                if self._reference is not None:
                    batch.reference_logprobs_T = self._reference.logprobs(batch.tokens)
                if self._config.algorithm.importance == "decoupled" and m > 0:
                    batch.proximal_logprobs_T, _ = self._engine.forward_only(batch.tokens)

    def _optimizer_step(
        self,
        index: int,
        plan: MinibatchPlan,
        micro_batches: SequenceOf[MicroBatch],
        manifest: BatchManifest,
        lr: float,
        tally: Tally,
    ) -> StepReport:
        counted = denominators(manifest, plan.groups, self._config)
        unchanged = manifest.step if index == 0 else None
        if self._rank == 0:
            tally.add("train/loss", 0.0, 1)  # summed over ranks and micro-batches, averaged over minibatches
        return self._engine.step(
            micro_batches,
            lambda model, batch: self._objective.loss(model, batch, counted, tally, unchanged_version=unchanged),
            lr=lr,
        )


def manifest_metrics(manifest: BatchManifest) -> dict[str, float]:
    """What the manifest alone tells. reward/std is that within groups, averaged: zero means that nothing can be learned."""
    rewards = [np.array(g.rewards, dtype=np.float64) for g in manifest.groups]
    lengths = np.concatenate([g.completion_tokens for g in manifest.groups])
    ages = np.array([manifest.step - g.min_policy_version for g in manifest.groups])
    prompts = sum(g.prompt_tokens * len(g.completion_tokens) for g in manifest.groups)
    centred = np.concatenate(
        [r - r.mean() for r in rewards]
    )  # else hard prompts, long and ill paid, would hide the rest
    centred_lengths = np.concatenate(
        [np.asarray(g.completion_tokens) - np.mean(g.completion_tokens) for g in manifest.groups]
    )
    paid = correlation(centred, centred_lengths)
    return {
        **({} if paid is None else {LENGTH_CORRELATION: paid}),
        "reward/mean": float(np.concatenate(rewards).mean()),
        "reward/std": float(np.mean([r.std() for r in rewards])),
        "length/mean": float(lengths.mean()),
        "length/max": float(lengths.max()),
        "staleness/mean": float(ages.mean()),
        "staleness/max": float(ages.max()),
        "batch/tokens": float(lengths.sum() + prompts),
    }


def step_metrics(reports: SequenceOf[StepReport], lr: float) -> dict[str, float]:
    """Gradient norm (mean over the minibatches that were applied, left out if none was), learning rate, skipped steps."""
    norms = [r.grad_norm for r in reports if r.applied]
    metrics = {"train/lr": lr, "train/skipped": float(len(reports) - len(norms))}
    return {**metrics, "train/grad_norm": float(np.mean(norms))} if norms else metrics
