"""Seconds that the parts of a run take: a roofline of each GPU, with shares of its peak that are assumed or measured.

Generation is bound by memory: one engine step reads the weights once and the KV cache of every sequence, and computes
2P operations for each sequence (P parameters that a token uses). Training takes 6P operations a token (Kaplan et al.
2020, section 2.1), 2P more if activations are recomputed, and 2P for each policy that only scores. Attention adds
2 x layers x hidden x context to every pass of 2P. With adapters of A parameters it is 4P + 6A: frozen weights have no
gradient, which is one of the three passes, but the backward pass still goes through them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from r1ray.config.rules import keeps_reference
from r1ray.config.schema import Config
from r1ray.config.sections.hardware import Gpu
from r1ray.models.folder import ModelShape
from r1ray.preflight.accelerators import ACCELERATORS
from r1ray.preflight.memory import BYTES, cache_bytes, engine_item_bytes, key_value_copies, trained_parameters
from r1ray.preflight.volumes import checkpoint_seconds, load_seconds, model_bytes, sync_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """What the devices reach of their data sheets. Producers: this default, `calibrate`. Consumer: `Rates`.

    The defaults are assumptions for GPUs; none was measured here (docs/scaling.md).
    """

    training_share: float = 0.35  # of the peak operations, in the learner
    decode_share: float = 0.6  # of the memory bandwidth, in an engine
    compute_share: float = 0.4  # of the peak operations, in an engine that samples
    prefill_share: float = 0.4  # of the peak operations, in an engine that computes keys and values of known tokens
    engine_step_s: float = 0.005  # of an engine step, beside the roofline: scheduler, sampler, launches
    learner_step_s: float = 1.0  # of a training step, beside the roofline: batch, payloads, metrics
    sync_s: float = 0.5  # of a sync, beside its bytes: rendezvous, commit
    start_s: float = 120.0  # of a process, beside reading the model: imports, compilation


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Seconds of each part of a run of `config`. Producer: `forecast`. Consumers: `simulate`, `best_split`."""

    config: Config
    shape: ModelShape
    efficiency: Efficiency

    @property
    def _gpu(self) -> Gpu:
        return self.config.hardware.gpu or "cpu"

    def engine_devices(self) -> float:
        """GPUs, or cores, of one engine."""
        rollout = self.config.rollout
        if self._gpu == "cpu":
            return max(1.0, rollout.num_cpus)
        return rollout.num_gpus * rollout.engine.tensor_parallel_size

    def engine_step_s(self, sequences: int, context: float) -> float:
        """One step of an engine, which gives each of `sequences` one token; `context`: mean tokens before it."""
        device, devices, e = ACCELERATORS[self._gpu], self.engine_devices(), self.efficiency
        item = engine_item_bytes(self.config)
        routed = self.shape.routed * (1 - (1 - self.shape.active_share) ** sequences)  # experts that some token chose
        weights = item * (self.shape.parameters - self.shape.routed + routed)
        cache = sequences * context * cache_bytes(self.config, self.shape)
        copies = devices if self.shape.latent else 1.0  # a compressed cache is whole on every GPU
        memory = (weights + cache * copies) / (devices * device.memory_gb_s * 1e9 * e.decode_share)
        operations = sequences * (2 * self.shape.active + self._attention(context))
        compute = operations / (devices * device.tflops * 1e12 * e.compute_share)
        return e.engine_step_s + max(memory, compute)

    def prefill_s(self, tokens: float, context: float) -> float:
        """Computing the KV cache of `tokens` in one engine."""
        device, devices = ACCELERATORS[self._gpu], self.engine_devices()
        operations = tokens * (2 * self.shape.active + self._attention(context))
        return operations / (devices * device.tflops * 1e12 * self.efficiency.prefill_share)

    def slots(self, context: float) -> int:
        """Sequences that one engine decodes at once: its limit, its groups, and what its KV cache holds."""
        rollout = self.config.rollout
        slots = min(rollout.engine.max_num_seqs, rollout.groups_in_engine * rollout.group_size)
        return max(1, min(slots, int(self.cache_tokens() / max(1.0, context))))

    def cache_tokens(self) -> float:
        """Tokens in the KV cache of one engine."""
        engine, token = self.config.rollout.engine, cache_bytes(self.config, self.shape)
        if engine.kv_cache_gib is not None:
            return engine.kv_cache_gib * 2**30 / token
        device, parts = ACCELERATORS[self._gpu], self.engine_devices()
        weights = self.shape.parameters * engine_item_bytes(self.config)
        room = parts * device.memory_bytes * engine.gpu_memory_utilization - weights
        return max(0.0, room / (token * (parts if self.shape.latent else 1.0)))

    def generation_tokens_s(self, context: float) -> float:
        """Tokens a second of one full engine."""
        slots = self.slots(context)
        return slots / self.engine_step_s(slots, context)

    def learner_devices(self) -> float:
        """GPUs, or cores, of one learner rank."""
        learner = self.config.learner
        return max(1.0, learner.num_cpus) if self._gpu == "cpu" else learner.num_gpus

    def training_s(self, tokens: float, context: float) -> float:
        """One training step on `tokens` packed tokens in all; `context`: mean tokens before one."""
        config, learner = self.config, self.config.learner
        device = ACCELERATORS[self._gpu]
        scored = keeps_reference(config) + (config.algorithm.importance == "decoupled")
        passes = 3.0 + config.model.activation_checkpointing + scored
        each = tokens / learner.ranks
        operations = each * (passes * (2 * self.shape.active + self._attention(context)) + self._adapters())
        peak = self.learner_devices() * device.tflops * 1e12
        compute = operations / (peak * self.efficiency.training_share)
        heads = passes * self._heads_exchange_s(each)
        return self.efficiency.learner_step_s + max(compute, self._exchange_s(each)) + heads

    def _adapters(self) -> float:
        """Operations a token that adapters add: their own 6A (A parameters), less 2P for gradients of frozen weights.

        What recomputes or scores without a gradient runs through them once more; a reference is the model without them.
        """
        config = self.config
        if config.model.lora.rank is None:
            return 0.0
        trained = trained_parameters(config, self.shape)
        forward = config.model.activation_checkpointing + (config.algorithm.importance == "decoupled")
        return (6 + 2 * forward) * trained - 2 * self.shape.active

    def _exchange_s(self, tokens_of_rank: float) -> float:
        """Seconds of collectives in a step: weights and gradients between hosts, which overlap with computing."""
        config, hardware = self.config, self.config.hardware
        hosts = math.ceil(config.learner.ranks * config.learner.num_gpus / hardware.per_node)
        if config.learner.ranks == 1 or self._gpu == "cpu":
            return 0.0
        speed = (hardware.network_gb_s if hosts > 1 else ACCELERATORS[self._gpu].link_gb_s / 2) * 1e9
        once, learner = model_bytes(config, self.shape), config.learner
        trained = BYTES[config.model.dtype] * trained_parameters(config, self.shape)
        if learner.zero_stage < 3:  # gradients and updated weights, each optimiser step
            return 2 * learner.minibatches * trained / speed
        micro_batches = max(learner.minibatches, math.ceil(tokens_of_rank / learner.micro_batch_tokens))
        return micro_batches * (2 * once + trained) / speed  # weights for both passes, then gradients

    def _heads_exchange_s(self, tokens_of_rank: float) -> float:
        """Seconds in which a sequence group exchanges tokens for heads in one pass; nothing is computed meanwhile."""
        learner, hardware = self.config.learner, self.config.hardware
        n = learner.sequence_parallel
        if n == 1 or self._gpu == "cpu":
            return 0.0
        inside = n * learner.num_gpus <= hardware.per_node
        speed = (ACCELERATORS[self._gpu].link_gb_s / 2 if inside else hardware.network_gb_s) * 1e9
        key_value = self.shape.key_value * key_value_copies(self.shape.key_value_heads, n)
        values = self.shape.layers * (2 * self.shape.hidden + 2 * key_value) * (n - 1) / n
        return tokens_of_rank * values * BYTES[self.config.model.dtype] / speed

    def _attention(self, context: float) -> float:
        return 2.0 * self.shape.layers * self.shape.hidden * context

    def sync_s(self) -> float:
        """One weight sync."""
        return self.efficiency.sync_s + sync_seconds(self.config, self.shape)

    def checkpoint_s(self) -> float:
        """One checkpoint."""
        return checkpoint_seconds(self.config, self.shape)

    def restart_s(self) -> float:
        """A process from its start to its first work."""
        return self.efficiency.start_s + load_seconds(self.config, self.shape)
