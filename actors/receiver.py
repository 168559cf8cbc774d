"""vLLM's end of a weight transfer: receive beside generation, apply between two engine steps, read back what is served.

This is an engine of vLLM's own weight-transfer protocol, registered under the name "r1ray" by importing this module; it
runs in the process that holds the model (with tensor parallelism: in each of them).

    init_weight_transfer_engine  keep the group of a new epoch; the thread below joins it, because joining can block
    start_weight_update          nothing: the model does not change while tensors arrive
    update_weights               start a thread that receives every bucket into host memory, and return
    finish_weight_update         load the staged tensors into the model, all at once

While the thread receives, the engine continues to generate with the old weights. If the learner dies meanwhile, the
staged tensors are discarded and nothing has changed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from vllm.distributed.weight_transfer import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from actors.readback import differing_weights
from r1ray.errors import ConfigError, WeightSyncError
from r1ray.transport.channel import Channel, Rendezvous
from r1ray.transport.plan import Digest, TensorSpec, bucket_plan, unpack
from r1ray.transport.rendezvous import join

ENGINE_NAME = "r1ray"


@dataclass
class InitInfo(WeightTransferInitInfo):
    """How to join the group of an epoch."""

    rendezvous: dict[str, Any]
    rank_offset: int  # rank of this worker's first process in the group
    interface: str | None
    host: str | None


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    """The plan of one transfer."""

    specs: list[tuple[str, str, tuple[int, ...]]]  # name, dtype, shape in the order of sending
    bucket_bytes: int
    digest: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """Result of one receiving thread."""

    digest: str  # of the bytes on the wire; empty if not requested
    seconds: float


class StagedReceiver(WeightTransferEngine[InitInfo, UpdateInfo]):
    """See the module's docstring. One transfer at a time; every failure leaves the served weights unchanged."""

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo

    _join: Callable[[], Channel] | None = None
    _channel: Channel | None = None
    _thread: threading.Thread | None = None
    _staged: dict[str, torch.Tensor] | None = None
    _error: BaseException | None = None
    _received: Received | None = None

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        """Leave the old group; `receive_weights` joins the new one."""
        self.shutdown()
        parallel = self.parallel_config
        rank = init_info.rank_offset + parallel.data_parallel_index * parallel.world_size + parallel.rank
        self._join = partial(
            join, Rendezvous(**init_info.rendezvous), rank=rank, interface=init_info.interface, host=init_info.host
        )

    def start_weight_update(self) -> None:
        """Raises WeightSyncError if there is no group to receive from."""
        if self._join is None and self._channel is None:
            raise WeightSyncError("a weight update was started before this worker got a weight-sync group")

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Start to receive, without blocking."""
        # The base class's method synchronises an accelerator, which raises on CPU, and nothing is on a device yet.
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: UpdateInfo) -> None:
        """Start the thread that receives."""
        self._error = self._received = self._staged = None
        self._thread = threading.Thread(target=self._receive, args=(update_info,), name="weight-receiver", daemon=True)
        self._thread.start()

    def _receive(self, info: UpdateInfo) -> None:
        try:
            if self._join is not None:
                self._channel, self._join = self._join(), None
            assert self._channel is not None
            began = time.monotonic()
            digest = Digest()
            staged: dict[str, torch.Tensor] = {}
            specs = [TensorSpec(name=n, dtype=d, shape=tuple(s)) for n, d, s in info.specs]
            for bucket in bucket_plan(specs, info.bucket_bytes):
                buffer = self._channel.buffer(bucket.nbytes)
                self._channel.broadcast(buffer)
                if info.digest:
                    digest.update(buffer)
                staged.update(unpack(bucket, self._channel.stage(buffer)))
            self._staged = staged
            self._received = Received(
                digest=digest.hexdigest() if info.digest else "", seconds=time.monotonic() - began
            )
        except BaseException as e:  # handed to the engine's thread by `received`
            self._error = e

    def received(self) -> Received | None:
        """None while buckets are arriving; raises the error that ended the thread."""
        if self._thread is not None and self._thread.is_alive():
            return None
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._received

    def finish_weight_update(self) -> None:
        """Load the received tensors into the model. Raises WeightSyncError before all are received."""
        if self._staged is None:
            raise WeightSyncError("cannot apply a weight update before all of it is received")
        _repack_experts_on_cpu(self.model)
        initialize_layerwise_reload(self.model)
        self.model.load_weights(iter(self._staged.items()))
        finalize_layerwise_reload(self.model, self.model_config)
        # On CPU a tied lm_head keeps the GEMM packed from the old embedding; pack it again.
        for module in self.model.modules():
            if isinstance(module, ParallelLMHead) and hasattr(module, "cpu_linear"):
                module.quant_method.process_weights_after_loading(module)

    def read_back(self) -> list[str]:
        """Names of served weights that differ from what was received."""
        assert self._staged is not None
        return differing_weights(self.model, self._staged)

    def release(self) -> None:
        """Free the received tensors."""
        self._staged = None

    def shutdown(self) -> None:
        """Leave the group."""
        if self._channel is not None:
            self._channel.close()
        self._channel = self._join = None


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
        """See `StagedReceiver.received`."""
        return self.weight_transfer_engine.received()

    def weights_release(self) -> None:
        """Free the staged tensors and end the update session, whether they were applied or not."""
        self._weight_update_active = False
        self.weight_transfer_engine.release()

    def weights_read_back(self) -> list[str]:
        """See `StagedReceiver.read_back`."""
        return self.weight_transfer_engine.read_back()


WeightTransferEngineFactory.register_engine(ENGINE_NAME, StagedReceiver)
