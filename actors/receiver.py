"""vLLM's end of a weight transfer: receive beside generation, apply between two engine steps, read back what is served.

This is an engine of vLLM's own weight-transfer protocol, registered under the name "r1ray" by importing this module; it
runs in the process that holds the model (with tensor parallelism: in each of them).

    init_weight_transfer_engine  keep the group of a new epoch; the receiving thread joins it, because joining can block
    start_weight_update          nothing: the model does not change while tensors arrive
    update_weights               start a thread that receives every bucket into host memory (staging.py), and return
    finish_weight_update         load the staged tensors into the model, all at once

While the thread receives, the engine continues to generate with the old weights. If the learner dies meanwhile, the
staged tensors are discarded and nothing has changed.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from vllm.distributed.weight_transfer import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from actors.engine_places import ProcessPlace
from actors.host_copy import memory_id
from actors.readback import differing_weights
from actors.reload_log import silence_unsent
from actors.shm_cleanup import remove_leftovers
from actors.staging import Received, WeightReceiver
from r1ray.errors import ConfigError, WeightSyncError
from r1ray.transport.channel import Rendezvous
from r1ray.transport.plan import transfer_plan
from r1ray.transport.rendezvous import join
from r1ray.transport.transfer import WeightLayout
from r1ray.util.machine import return_free_memory

ENGINE_NAME = "r1ray"
RETURN_S = 10.0
"""Seconds between two returns of free memory."""


@dataclass
class InitInfo(WeightTransferInitInfo):
    """How to join the group of an epoch."""

    rendezvous: dict[str, Any]
    rank_offset: int  # rank of this worker's first process in the group
    interface: str | None
    hosts: list[str | None]  # address of each process's host, by its rank in the engine


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    """The plan of one transfer."""

    layout: WeightLayout
    bucket_bytes: int
    digest: bool
    delta: bool  # the sender sends differences


class StagedReceiver(WeightTransferEngine[InitInfo, UpdateInfo]):
    """See the module's docstring. One transfer at a time; every failure leaves the served weights unchanged."""

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo
    _return_at = 0.0

    @functools.cached_property
    def receiver(self) -> WeightReceiver:
        """The thread and what it receives, on the device that vLLM gave to this process."""
        return WeightReceiver(self.device)

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        """Leave the old group; `receive_weights` joins the new one."""
        tied = getattr(self.model_config.hf_text_config, "tie_word_embeddings", False)
        silence_unsent(self.model, ParallelLMHead.__name__ if tied else None)
        rank = init_info.rank_offset + self.parallel_config.rank
        rendezvous = Rendezvous(**init_info.rendezvous)
        network = {"interface": init_info.interface, "host": init_info.hosts[self.parallel_config.rank]}
        memory = memory_id()
        self.receiver.enter(lambda device: join(rendezvous, rank=rank, memory=memory, device=device, **network))

    def start_weight_update(self) -> None:
        """Raises WeightSyncError if there is no group to receive from."""
        if not self.receiver.has_group:
            raise WeightSyncError("a weight update was started before this worker got a weight-sync group")

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Start to receive, without blocking."""
        # The base class's method synchronises an accelerator, which raises on CPU, and nothing is on a device yet.
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: UpdateInfo) -> None:
        """Start the thread that receives."""
        plan = transfer_plan(update_info.layout, update_info.bucket_bytes)
        self.receiver.begin(plan, digest=update_info.digest, delta=update_info.delta)

    def finish_weight_update(self) -> None:
        """Load the received tensors into the model. Raises WeightSyncError before all are received."""
        staged = self.receiver.tensors()
        _repack_experts_on_cpu(self.model)
        initialize_layerwise_reload(self.model)
        self.model.load_weights(iter(staged.items()))
        finalize_layerwise_reload(self.model, self.model_config)
        # On CPU a tied lm_head keeps the GEMM packed from the old embedding; pack it again.
        for module in self.model.modules():
            if isinstance(module, ParallelLMHead) and hasattr(module, "cpu_linear"):
                module.quant_method.process_weights_after_loading(module)

    def read_back(self) -> list[str]:
        """Names of served weights that differ from what was received."""
        return differing_weights(self.model, self.receiver.tensors())

    def release(self) -> None:
        """Free the received tensors; every `RETURN_S` also the holes that steps of changing sizes leave in the heap."""
        self.receiver.release()
        if time.monotonic() >= self._return_at:
            return_free_memory()
            self._return_at = time.monotonic() + RETURN_S

    def shutdown(self) -> None:
        """Leave the group."""
        self.receiver.leave()


def _repack_experts_on_cpu(model: torch.nn.Module) -> None:
    """Make the coming reload pack experts as the first load did.

    vLLM 0.32 packs a layer's experts for its CPU kernel only when it builds that kernel; a reload into a kernel that is
    there copies unpacked values into packed storage, and the layer computes nonsense.
    """
    for module in model.modules():
        method: Any = getattr(module, "quant_method", None)
        kernel = getattr(method, "moe_kernel", None)
        if kernel is not None and isinstance(kernel.fused_experts, CPUUnquantizedExperts):
            method.moe_kernel = None


def _mask_logits(ids: list[int], layer: Any, inputs: Any, logits: torch.Tensor | None) -> None:
    if logits is not None:  # with tensor parallelism only one process may hold them
        logits[..., ids] = -torch.inf


class ReceiverExtension:
    """Methods that `collective_rpc` finds on vLLM's worker; its name in the engine arguments imports this module."""

    weight_transfer_engine: StagedReceiver
    _weight_update_active: bool
    model_runner: Any

    def place(self) -> ProcessPlace:
        """Where this process runs: an actor of Ray. Removes what killed processes left in its host's shared memory."""
        import ray

        if removed := remove_leftovers():
            print(f"removed shared memory of processes that are gone: {', '.join(removed)}", flush=True)
        return ProcessPlace(node=ray.get_runtime_context().get_node_id(), address=ray.util.get_node_ip_address())

    def mask_unused_ids(self, ids: list[int]) -> None:
        """Give these token ids probability 0, before temperature and top-p; the learner does the same.

        Raises ConfigError if the model has no layer in which vLLM computes its logits.
        """
        layers = [m for m in self.model_runner.get_model().modules() if isinstance(m, LogitsProcessor)]
        if not layers:
            raise ConfigError("the model has no LogitsProcessor layer, so ids without a token cannot be masked")
        for layer in layers:
            layer.register_forward_hook(partial(_mask_logits, ids))

    def weights_received(self) -> Received | None:
        """See `WeightReceiver.received`."""
        return self.weight_transfer_engine.receiver.received()

    def weights_release(self) -> None:
        """Free the staged tensors and end the update session, whether they were applied or not."""
        self._weight_update_active = False
        self.weight_transfer_engine.release()

    def weights_read_back(self) -> list[str]:
        """See `StagedReceiver.read_back`."""
        return self.weight_transfer_engine.read_back()


WeightTransferEngineFactory.register_engine(ENGINE_NAME, StagedReceiver)
