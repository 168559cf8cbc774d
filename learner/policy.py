"""A rank of policy optimization: trains on scored groups and sends the new weights to the rollout workers.

    manifest --> advantages, plan --> fetch --> pack --> [reference, proximal] --> M optimizer steps --> metrics

Everything before `fetch` is equal on every rank; everything after it concerns this rank's sequences only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as SequenceOf
from pathlib import Path
from typing import Any

from torch import Tensor

from learner.advantages import FloatArray
from learner.assemble import (
    Fetch,
    batch_advantages,
    denominators,
    fetch_groups,
    is_trained,
    make_sequence,
    silent_completions,
)
from learner.attention import why_not_shared
from learner.batch import MicroBatch, make_micro_batch
from learner.engine import StepReport
from learner.experts import install
from learner.group import named_failures
from learner.metrics import LengthRewardCorrelation, MetricSums, manifest_metrics, optimizer_metrics, plan_metrics
from learner.model import PackedModel, empty_policy
from learner.objective import MAXIMA, MEANS, PolicyObjective
from learner.packing import MinibatchPlan, SequenceRef, plan_step
from learner.plugins import load_advantage
from learner.profiling import Profiler
from learner.publish import WeightPublisher
from learner.rank import TrainingRank
from learner.reference import BaseModel, ReferencePolicy
from learner.routing import ROUTING, Routing, check_replayable
from learner.schedules import learning_rate
from learner.shares import held_weights
from r1ray.config.rules import copies_reference, keeps_reference, learned_rewards, row_tokens
from r1ray.config.schema import Config
from r1ray.config.transport import transport_of
from r1ray.control.handles import RankProfile
from r1ray.errors import ConfigError, IntegrityError
from r1ray.run.profile import METRICS, PACK, REFERENCE, trace_name
from r1ray.transport.channel import Rendezvous
from r1ray.transport.plan import spec_of, stream_plan
from r1ray.transport.transfer import Sent, Share, TransferSpecs
from r1ray.types import SCORED_S, BatchManifest, ScoredGroup

SCORING = "reward_worker/seconds"
"""Metric: time to score a group."""


class PolicyRank(TrainingRank):
    """Trains the policy on one manifest after the other; `fetch` gets the payloads of groups from the ledger."""

    def __init__(self, *, config: Config, rank: int, fetch: Fetch, host: str = "127.0.0.1") -> None:
        super().__init__(config=config, rank=rank, host=host)
        self._fetch = fetch
        self._profiler: Profiler | None = None

    def _watched(self, module: PackedModel) -> PackedModel:
        """The module; its routers are watched if the configuration asks for it."""
        if (routing := self._config.algorithm.routing) != "ignore":
            module.routing = Routing(module.hf, replay=routing == "replay")
        return module

    def _prepare(self) -> dict[str, Any]:
        config = self._config
        self._routing: Routing | None = self._engine.module.routing
        self._objective = PolicyObjective(config)
        self._advantage = load_advantage(config.algorithm.advantage)
        self._reward_parts = [f"reward/part/{reward.name}" for reward in config.rewards]
        self._length_correlation = LengthRewardCorrelation(learned_rewards(config))
        self._share_prompts = self._decide_on_sharing()
        if copies_reference(config):
            empty = empty_policy(config.model, self._folder)
            if self._experts.size > 1:
                install(empty, self._experts)
            self._reference = ReferencePolicy(empty, self._engine, version=0)
        base = BaseModel(self._engine) if keeps_reference(config) else None
        self._compared: ReferencePolicy | BaseModel | None = self._reference or base
        self._specs = [spec_of(name, tensor) for name, tensor in self.named_weights()]
        self._senders = self._world_size if config.sync.senders == "all" else 1
        index = {spec.name: i for i, spec in enumerate(self._specs)}
        self._shares = [(index[name], start, values.numel()) for name, start, values in self._sent_weights()]
        self._publisher = WeightPublisher(
            config.sync,
            transport=transport_of(config),
            plan=stream_plan(self._specs, self._shares, config.sync.bucket_bytes),
            rank=self._rank,
            senders=self._senders,
            host=self._host,
            device=self._engine.device,
        )
        return {}

    def _decide_on_sharing(self) -> bool:
        """Whether the completions of a group share their prompt's rows: by configuration, else if the attention can.

        Raises ConfigError if the configuration requires what the attention cannot do.
        """
        wanted = self._config.learner.shared_prompts
        implementation = self._engine.module.hf.config._attn_implementation
        reason = why_not_shared(implementation, cuda=self._engine.device.type == "cuda")
        if wanted and reason:
            raise ConfigError(f"learner.shared_prompts=true: {reason}; set it to false, or to null")
        if reason and wanted is None and self._rank == 0:
            print(f"learner: prompts are computed once per completion, not once per group: {reason}", flush=True)
        return reason is None and wanted is not False

    # -- weights to the rollout workers -----------------------------------------------------------------------------

    def weight_specs(self) -> TransferSpecs:
        """(name, dtype, shape) of every weight."""
        return [(s.name, s.dtype, s.shape) for s in self._specs]

    def weight_shares(self) -> list[Share]:
        """What this rank sends of them, in the order in which `publish` does."""
        return self._shares

    def _sent_weights(self) -> Iterator[tuple[str, int, Tensor]]:
        """(name, first value, values) of what this rank sends; every rank must iterate to the end."""
        if self._senders > 1:
            with named_failures("gathering weights"):
                yield from held_weights(self._engine, self._format, rank=self._rank, ranks=self._world_size)
            return
        yield from ((name, 0, tensor) for name, tensor in self.named_weights())

    def open_epoch(self, epoch: int, receivers: int) -> Rendezvous:
        """Open the rendezvous of sync epoch `epoch` for `receivers` rollout workers. Rank 0 only; no collective."""
        return self._publisher.open_epoch(epoch, receivers)

    def publish(self, version: int, group: Rendezvous | None) -> Sent:
        """Send the weights of policy `version`, which this rank must hold; to `group` if it is a new one.

        Raises WeightSyncError.
        """
        assert version == self._version, f"policy {version} requested, {self._version} held"
        return self._publisher.send(self._sent_weights(), group)

    # -- profile ----------------------------------------------------------------------------------------------------

    def start_profile(self) -> None:
        """Record the next steps with torch's profiler."""
        self._profiler = Profiler(self._engine.phases, self._engine.device)

    def stop_profile(self, folder: str) -> RankProfile:
        """Record no more, and write the trace into `folder`; no collective."""
        assert self._profiler is not None, "start_profile comes first"
        profiler, self._profiler = self._profiler, None
        return profiler.stop(Path(folder) / trace_name(self._rank))

    # -- training ---------------------------------------------------------------------------------------------------

    def train_step(self, manifest: BatchManifest) -> dict[str, float]:
        """Train policy `manifest.step` on the groups of the manifest; metrics by their names in docs/run-folder.md.

        They are equal on every rank. A mean over nothing is left out, such as `mismatch/*` if the policy itself sampled
        no token of the batch. Raises IntegrityError if the manifest is of another step or a payload contradicts it.
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
        with self._engine.phases(PACK):
            advantages = batch_advantages(manifest, self._advantage, self._config)
            plans = self._plan(manifest, advantages)
            minibatches = self._pack(manifest, plans, advantages, sums)
        with self._engine.phases(REFERENCE):
            self._add_reference_and_proximal_logprobs(minibatches)
        lr = learning_rate(manifest.step, self._config.run.steps, learner.optimizer)
        reports = [
            self._optimizer_step(m, plan, micro_batches, manifest, lr, sums)
            for m, (plan, micro_batches) in enumerate(zip(plans, minibatches, strict=True))
        ]
        with self._engine.phases(METRICS):
            reduced, _ = sums.reduce(self._engine.all_reduce)
        return {
            **manifest_metrics(manifest),
            **self._length_correlation.pop(reduced),
            **reduced,
            **optimizer_metrics(reports, lr),
            **plan_metrics(plans),
            "learner/step_s": time.perf_counter() - started,
        }

    def _new_sums(self) -> MetricSums:
        means = [*MEANS, "length/truncated", "length/empty", SCORING, *self._reward_parts]
        means += self._length_correlation.means + ([ROUTING] if self._routing is not None else [])
        return MetricSums(means=means, maxima=MAXIMA, device=self._engine.device, counts=self._counts)

    def _plan(self, manifest: BatchManifest, advantages: SequenceOf[FloatArray]) -> list[MinibatchPlan]:
        learner = self._config.learner
        return plan_step(
            manifest,
            minibatches=learner.minibatches,
            ranks=self._replicas,
            micro_batch_tokens=row_tokens(self._config),
            share_prompts=self._share_prompts,
            silent=silent_completions(manifest, advantages, self._config),
        )

    def _pack(
        self,
        manifest: BatchManifest,
        plans: SequenceOf[MinibatchPlan],
        advantages: SequenceOf[FloatArray],
        sums: MetricSums,
    ) -> list[list[MicroBatch]]:
        """This replica's micro-batches of every minibatch, from fetched payloads."""
        mine = [plan.micro_batches[self._replica] for plan in plans]
        refs = [ref for micro_batches in mine for refs in micro_batches for ref in refs]
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
            if self._config.algorithm.routing == "replay":
                check_replayable(sequences, manifest.step)
            shared = [ref.group for ref in refs] if self._share_prompts else None
            return make_micro_batch(sequences, self._engine.device, groups=shared, shared_by=self._sequence)

        return [[pack(refs) for refs in micro_batches] for micro_batches in mine]

    def _add_rollout_metrics(
        self, refs: SequenceOf[SequenceRef], groups: Mapping[int, ScoredGroup], sums: MetricSums
    ) -> None:
        """Metrics of all completions: those of this rank, and those that the step leaves out and they stand for."""
        members = [(ref.group, c) for ref in refs for c in (ref.completion, *ref.stands_for)]
        scores = [groups[g].scores[c] for g, c in members]
        for name in self._reward_parts:
            key = name.removeprefix("reward/part/")
            values = [score.parts[key] for score in scores if key in score.parts]  # not every source has every reward
            sums.add(name, sum(values), len(values))
        for group in groups:
            if (seconds := groups[group].rollout.timings.get(SCORED_S)) is not None:
                sums.add(SCORING, seconds, 1)
            self._length_correlation.add(groups[group], [c for g, c in members if g == group], sums)
        completions = [groups[g].rollout.completions[c] for g, c in members]
        sums.add("length/truncated", sum(c.finish_reason == "length" for c in completions), len(completions))
        sums.add("length/empty", sum(not c.text for c in completions), len(completions))

    def _add_reference_and_proximal_logprobs(self, minibatches: SequenceOf[SequenceOf[MicroBatch]]) -> None:
        """Fill in the log-probabilities that must be taken before the first optimizer step."""
        for m, micro_batches in enumerate(minibatches):
            for batch in micro_batches:
                if self._compared is not None:
                    batch.reference_logprobs_T = self._compared.logprobs(batch.tokens)
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
            if index == 0:
                sums.add("mismatch/tokens", 0.0, 1)  # a sum

        def loss_of(model: Any, batch: MicroBatch) -> Any:
            loss = self._objective.loss(model, batch, counted, sums, unchanged_version=unchanged)
            if self._routing is not None and unchanged is not None:
                self._routing.compare(batch, unchanged, sums)
            return loss

        return self._engine.step(micro_batches, loss_of, lr=lr)
