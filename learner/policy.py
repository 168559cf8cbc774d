"""A rank of policy optimization: trains on scored groups and sends the new weights to the rollout workers.

    manifest --> advantages, plan --> fetch --> pack --> [reference, proximal] --> M optimizer steps --> metrics

Everything before `fetch` is equal on every rank; everything after it concerns this rank's sequences only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from typing import Any

from learner.assemble import Fetch, batch_advantages, denominators, fetch_groups, is_trained, make_sequence
from learner.batch import MicroBatch, make_micro_batch
from learner.engine import StepReport
from learner.group import named_failures
from learner.metrics import LengthRewardCorrelation, MetricSums, manifest_metrics, optimizer_metrics
from learner.model import load_policy
from learner.objective import MAXIMA, MEANS, PolicyObjective
from learner.packing import MinibatchPlan, SequenceRef, plan_step
from learner.plugins import load_advantage
from learner.publish import WeightPublisher
from learner.rank import TrainingRank
from learner.reference import ReferencePolicy
from learner.schedules import learning_rate
from r1ray.config.rules import keeps_reference, learned_rewards
from r1ray.config.schema import Config
from r1ray.config.transport import transport_of
from r1ray.errors import IntegrityError
from r1ray.transport.channel import Rendezvous
from r1ray.transport.plan import spec_of
from r1ray.transport.transfer import Sent, TransferSpecs
from r1ray.types import BatchManifest, ScoredGroup


class PolicyRank(TrainingRank):
    """Trains the policy on one manifest after the other; `fetch` gets the payloads of groups from the ledger."""

    def __init__(self, *, config: Config, rank: int, fetch: Fetch, host: str = "127.0.0.1") -> None:
        super().__init__(config=config, rank=rank, host=host)
        self._fetch = fetch

    def _prepare(self) -> dict[str, Any]:
        config = self._config
        self._objective = PolicyObjective(config)
        self._advantage = load_advantage(config.algorithm.advantage)
        self._reward_parts = [f"reward/part/{reward.name}" for reward in config.rewards]
        self._length_correlation = LengthRewardCorrelation(learned_rewards(config))
        if keeps_reference(config):
            self._reference = ReferencePolicy(load_policy(config.model, self._folder), self._engine, version=0)
        self._specs = [spec_of(name, tensor) for name, tensor in self.named_weights()]
        self._publisher = WeightPublisher(
            config.sync, transport=transport_of(config), specs=self._specs, is_sender=self._rank == 0
        )
        return {}

    # -- weights to the rollout workers -----------------------------------------------------------------------------

    def weight_specs(self) -> TransferSpecs:
        """(name, dtype, shape) of every weight, in the order in which `publish` sends them."""
        return [(s.name, s.dtype, s.shape) for s in self._specs]

    def open_epoch(self, epoch: int, receivers: int) -> Rendezvous:
        """Open the rendezvous of sync epoch `epoch` for `receivers` rollout workers. Rank 0 only; no collective."""
        return self._publisher.open_epoch(epoch, receivers, self._host)

    def publish(self, version: int) -> Sent:
        """Send the weights of policy `version`, which this rank must hold. Raises WeightSyncError."""
        assert version == self._version, f"policy {version} requested, {self._version} held"
        return self._publisher.send(self.named_weights())

    # -- training ---------------------------------------------------------------------------------------------------

    def train_step(self, manifest: BatchManifest) -> dict[str, float]:
        """Train policy `manifest.step` on the groups of the manifest; returns metrics by their names in docs/run-folder.md.

        They are equal on every rank. A mean over nothing is left out, such as `mismatch/*` if the policy itself sampled no
        token of the batch. Raises IntegrityError if the manifest is of another step or a payload contradicts it.
        """
        if manifest.step != self._version:
            raise IntegrityError(f"manifest of step {manifest.step}, but the learner holds policy {self._version}")
        refresh = self._config.algorithm.reference_refresh_steps
        with named_failures(f"training step {manifest.step}"):
            if self._reference is not None and refresh and self._version and self._version % refresh == 0:
                self._reference.refresh(self._version)
            metrics = self._train(manifest)
        self._version += 1
        return metrics

    def _train(self, manifest: BatchManifest) -> dict[str, float]:
        started = time.perf_counter()
        sums, learner = self._new_sums(), self._config.learner
        plans = plan_step(
            manifest,
            minibatches=learner.minibatches,
            ranks=self._world_size,
            micro_batch_tokens=learner.micro_batch_tokens,
        )
        minibatches = self._pack(manifest, plans, sums)
        self._add_reference_and_proximal_logprobs(minibatches)
        lr = learning_rate(manifest.step, self._config.run.steps, learner.optimizer)
        reports = [
            self._optimizer_step(m, plan, micro_batches, manifest, lr, sums)
            for m, (plan, micro_batches) in enumerate(zip(plans, minibatches, strict=True))
        ]
        reduced, counts = sums.reduce(self._engine.all_reduce)
        return {
            **manifest_metrics(manifest),
            **self._length_correlation.pop(reduced),
            **reduced,
            **optimizer_metrics(reports, lr),
            "mismatch/tokens": counts["mismatch/mean"],
            "learner/step_s": time.perf_counter() - started,
        }

    def _new_sums(self) -> MetricSums:
        means = [*MEANS, "length/truncated", "length/empty", *self._reward_parts, *self._length_correlation.means]
        return MetricSums(means=means, maxima=MAXIMA, device=self._engine.device)

    def _pack(
        self, manifest: BatchManifest, plans: SequenceOf[MinibatchPlan], sums: MetricSums
    ) -> list[list[MicroBatch]]:
        """This rank's micro-batches of every minibatch, from fetched payloads."""
        mine = [plan.micro_batches[self._rank] for plan in plans]
        refs = [ref for micro_batches in mine for refs in micro_batches for ref in refs]
        advantages = batch_advantages(manifest, self._advantage, self._config)
        groups = fetch_groups(manifest, (ref.group for ref in refs), self._fetch)
        self._add_rollout_metrics(refs, groups, sums)

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

    def _add_rollout_metrics(
        self, refs: SequenceOf[SequenceRef], groups: Mapping[int, ScoredGroup], sums: MetricSums
    ) -> None:
        scores = [groups[ref.group].scores[ref.completion] for ref in refs]
        for name in self._reward_parts:
            key = name.removeprefix("reward/part/")
            values = [score.parts[key] for score in scores if key in score.parts]  # not every source has every reward
            sums.add(name, sum(values), len(values))
        for group in groups:
            self._length_correlation.add(groups[group], [ref.completion for ref in refs if ref.group == group], sums)
        completions = [groups[ref.group].rollout.completions[ref.completion] for ref in refs]
        sums.add("length/truncated", sum(c.finish_reason == "length" for c in completions), len(completions))
        sums.add("length/empty", sum(not c.text for c in completions), len(completions))

    def _add_reference_and_proximal_logprobs(self, minibatches: SequenceOf[SequenceOf[MicroBatch]]) -> None:
        """Fill in the log-probabilities that must be taken before the first optimizer step."""
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
        sums: MetricSums,
    ) -> StepReport:
        counted = denominators(manifest, plan.groups, self._config)
        unchanged = manifest.step if index == 0 else None
        if self._rank == 0:
            sums.add("train/loss", 0.0, 1)  # summed over ranks and micro-batches, averaged over minibatches
        return self._engine.step(
            micro_batches,
            lambda model, batch: self._objective.loss(model, batch, counted, sums, unchanged_version=unchanged),
            lr=lr,
        )
