"""Model and optimizer under DeepSpeed: one optimizer step from micro-batches. Independent of reinforcement learning.

The caller's loss is this rank's share of a sum over all ranks (its denominators are global). DeepSpeed averages
gradients over ranks, so every share is multiplied by the number of ranks: the gradient is that of the whole minibatch
on one rank.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from learner import zero_state
from learner.checkpoint_format import persistent_buffers
from learner.deepspeed_config import deepspeed_config, make_optimizer
from learner.empty import DTYPES, Weights, materialize, share_buffers
from learner.experts import ALL_EXPERTS, ExpertGroup, bind, is_divided, parameter_groups, whole_parameters
from learner.lora import ADAPTER_PARTS, adapted
from learner.model import LogprobHead
from learner.parts import Part
from learner.profiling import Phases
from r1ray.config.schema import LearnerConfig, ModelConfig
from r1ray.preflight.memory import BUCKET_ELEMENTS
from r1ray.run.profile import BACKWARD, FORWARD, OPTIMIZER, REDUCE

B = TypeVar("B")
LossOf = Callable[[Callable[..., Any], B], Tensor]
"""(model, micro-batch) -> scalar loss; `model` is called like the module that the engine was made with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """Result of an optimizer step; equal on all ranks."""

    applied: bool  # False: the gradient was not finite, so parameters and optimizer are unchanged
    grad_norm: float  # global, before clipping; NaN if not applied


class Engine:
    """A module in training. All methods are collectives: every rank calls them, in the same order."""

    def __init__(
        self,
        module: nn.Module,
        *,
        weights: Weights,
        model: ModelConfig,
        learner: LearnerConfig,
        device: torch.device,
        world_size: int,
        experts: ExpertGroup = ALL_EXPERTS,
    ) -> None:
        """`module` may be empty: rank 0 gives its parameters and buffers the values of `weights` (`learner.empty`).

        `experts`: the ranks among which `learner.experts` has divided those of `module`.
        """
        import deepspeed

        self.device = device
        self.phases = Phases()
        self.stage = learner.zero_stage
        self.applied_steps = 0  # steps that the optimizer's bias correction counts
        self.experts = experts
        self._world_size = world_size
        self._clip = learner.optimizer.gradient_clip
        self._bf16 = {"enabled": DTYPES[model.dtype] == torch.bfloat16}
        parameters = [p for p in module.parameters() if p.requires_grad]
        config = deepspeed_config(model=model, learner=learner, elements=sum(p.numel() for p in parameters))
        materialize(module, weights, device=device, partition=self._partition(config))
        share_buffers(module)
        self._engine, *_ = deepspeed.initialize(
            model=module,
            optimizer=make_optimizer(parameter_groups(parameters, experts), learner),
            config=config,
            dist_init_required=False,
        )
        if self.stage == 0:  # DeepSpeed would copy all gradients into one buffer to reduce them, on a single rank too
            self._engine.enable_backward_allreduce = False
            for head in (m for m in module.modules() if isinstance(m, LogprobHead)):
                head.in_place = True  # no hook of DeepSpeed waits for this gradient
            for parameter in parameters:  # before any activation, and kept: among activations they would leave holes
                parameter.grad = torch.zeros_like(parameter)
        zero_state.prepare(self.stage, self.zero_optimizer, self.optimizer)

    @property
    def module(self) -> Any:
        """The module that the engine was made with."""
        return self._engine.module

    @property
    def zero_optimizer(self) -> Any:
        """DeepSpeed's wrapper of the optimizer; at stage 0 the optimizer itself."""
        return self._engine.optimizer

    @property
    def optimizer(self) -> Any:
        """The AdamW inside DeepSpeed's wrapper."""
        return self._engine.basic_optimizer

    def step(self, micro_batches: Sequence[B], loss_of: LossOf[B], *, lr: float) -> StepReport:
        """Run one optimizer step at learning rate `lr` over this rank's micro-batches (equally many on every rank)."""
        self.accumulate(micro_batches, loss_of)
        return self.apply(lr=lr)

    def accumulate(self, micro_batches: Sequence[B], loss_of: LossOf[B]) -> None:
        """Run forward and backward over all micro-batches; after the last one, sum the gradients over ranks."""
        for i, micro_batch in enumerate(micro_batches):
            self._engine.set_gradient_accumulation_boundary(i == len(micro_batches) - 1)
            with self.phases(FORWARD):
                loss = loss_of(self._engine, micro_batch) * self._world_size
                if not torch.isfinite(loss):
                    loss = loss * math.nan  # an infinite loss may have finite gradients: make every rank skip
            with self.phases(BACKWARD):
                self._engine.backward(loss)
        if self.stage == 0 and self._world_size > 1:
            with self.phases(REDUCE):
                self._engine.allreduce_gradients(bucket_size=BUCKET_ELEMENTS)

    def apply(self, *, lr: float) -> StepReport:
        """Clip by the global norm and step; if the norm is not finite, skip on every rank."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with self.phases(OPTIMIZER):
            applied, grad_norm = self._apply_plain() if self.stage == 0 else self._apply_zero()
        self.applied_steps += applied
        return StepReport(applied=applied, grad_norm=grad_norm if applied else math.nan)

    def _apply_zero(self) -> tuple[bool, float]:
        self._engine.step()
        applied = not self.zero_optimizer.overflow
        return applied, float(self._engine.get_global_grad_norm()) if applied else math.nan

    def _apply_plain(self) -> tuple[bool, float]:
        """Without ZeRO, DeepSpeed neither reports the norm nor checks for NaN."""
        parameters = [p for p in self.module.parameters() if p.grad is not None]
        norm = self.experts.total_norm(parameters)
        if not torch.isfinite(norm):
            for parameter in parameters:
                parameter.grad.zero_()
            return False, math.nan
        if self._clip > 0:
            torch.nn.utils.clip_grads_with_norm_(parameters, self._clip, norm)
        gradients = [p.grad for p in parameters]
        self._engine.step()  # which drops them
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.zero_()
        return True, float(norm)

    def forward_only(self, *args: Any, **kwargs: Any) -> Any:
        """The module's forward pass without gradients."""
        with torch.no_grad():
            return self._engine(*args, **kwargs)

    def inference_copy(self, module: nn.Module) -> Any:
        """Fill the empty `module` with this engine's values and freeze it; ZeRO 3 partitions it over the ranks."""
        import deepspeed

        module.requires_grad_(False)
        zero = {"stage": 3, "reduce_bucket_size": 1}
        config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": zero, "bf16": self._bf16}
        with self._own_weights() as weights:
            materialize(module, weights, device=self.device, partition=self._partition(config))
        if self.stage < 3:
            bind(module)
            return module
        engine, *_ = deepspeed.initialize(model=module, config=config, dist_init_required=False)
        return engine

    @contextlib.contextmanager
    def _own_weights(self) -> Iterator[Weights]:
        """The engine's parameters in their order, then its buffers, complete on every rank; all must be taken.

        Of divided experts each rank has its own, as `inference_copy` has them too.
        """
        own = self.full_parameters() if self.experts.size == 1 else self.module.named_parameters()
        stream = itertools.chain(own, persistent_buffers(self.module))

        def next_of(name: str) -> Tensor:
            found, tensor = next(stream)
            assert found == name, f"{found} came in place of {name}"
            return tensor

        yield next_of
        assert next(stream, None) is None, "not all weights were taken"  # ends the gathering of the last one

    def _partition(self, config: dict[str, Any]) -> Callable[[nn.Parameter], None] | None:
        """What divides a parameter over the ranks, with the values of rank 0; None below ZeRO 3."""
        if self.stage < 3:
            return None
        import deepspeed

        first: list[Any] = []

        def partition(parameter: Any) -> None:
            if first:
                first[0].convert_to_zero_parameters(param_list=[parameter])
            else:
                deepspeed.zero.Init(module=nn.ParameterList([parameter]), config_dict_or_path=config)
                first.append(parameter)

        return partition

    def all_reduce(self, values: Tensor, op: str) -> Tensor:
        """Reduce a tensor over ranks in place; `op` is sum or max."""
        ops = {"sum": torch.distributed.ReduceOp.SUM, "max": torch.distributed.ReduceOp.MAX}
        torch.distributed.all_reduce(values, op=ops[op])
        return values

    def full_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(name, complete parameter) in the module's order, tied ones once, in the compute dtype, with adapters merged.

        ZeRO 3 gathers one at a time: a tensor is valid until the next is requested, and every rank must iterate to
        the end.
        """
        return ((name, tensor) for name, _, tensor in self.held_parameters(lambda name: False))

    def held_parameters(self, divided: Callable[[str], bool]) -> Iterator[tuple[str, int | None, Tensor]]:
        """As `full_parameters`, with None. Of those for which `divided(name)`, ZeRO 3 does not gather: the index of the
        first value that this rank holds, and its values, flat.
        """
        if self.experts.size > 1:  # never with ZeRO 3
            yield from ((name, None, tensor) for name, tensor in whole_parameters(self.module, self.experts))
            return
        layers = {id(layer.weight): layer for layer in adapted(self.module).values()}
        adapters = {id(p) for layer in layers.values() for p in layer.adapter}
        for name, parameter in self.module.named_parameters():
            if id(parameter) in adapters:
                continue
            layer = layers.get(id(parameter))
            if self.stage == 3 and layer is None and divided(name):
                start, stop = zero_state.bounds(parameter)
                yield name, start, parameter.ds_tensor.data[: stop - start]
                continue
            with gathered([parameter, *(() if layer is None else layer.adapter)], self.stage):
                yield name, None, parameter.data if layer is None else layer.merged()

    def adapters(self) -> dict[str, Tensor]:
        """Name -> complete parameter of an adapter, a copy in the compute dtype on the CPU; empty without adapters."""
        found: dict[str, Tensor] = {}
        for prefix, layer in adapted(self.module).items():
            with gathered(layer.adapter, self.stage):
                for part, parameter in zip(ADAPTER_PARTS, layer.adapter, strict=True):
                    found[f"{prefix}.{part}"] = parameter.detach().to("cpu", copy=True)
        return found

    def parts(self) -> list[Part]:
        """What this rank holds of the trained float32 weights and Adam moments:
        with `applied_steps` the complete state.
        """
        return [
            self.experts.place(part) if is_divided(p) else part
            for name, p in self._trained()
            for part in zero_state.parts(self.stage, self.optimizer, name, p)
        ]

    def follow_parts(self, *, applied_steps: int) -> None:
        """Take over what was written to `parts`. A collective."""
        zero_state.copy_masters(self.stage, self.zero_optimizer, [p for _, p in self._trained()])
        self.applied_steps = applied_steps
        zero_state.set_step(self.stage, self.zero_optimizer, self.optimizer, applied_steps)

    def _trained(self) -> Iterator[tuple[str, Any]]:
        """(name, parameter) of those that are not frozen."""
        return ((name, p) for name, p in self.module.named_parameters() if p.requires_grad)

    def gather_ranks(self, row: Tensor) -> Tensor:
        """The rows of all ranks, stacked; they must have equal shapes."""
        rows = [torch.empty_like(row) for _ in range(self._world_size)]
        torch.distributed.all_gather(rows, row)
        return torch.stack(rows)

    def close(self) -> None:
        """Leave the process group."""
        self._engine.destroy()
        torch.distributed.destroy_process_group()


def gathered(parameters: list[Any], stage: int, *, write: bool = False) -> contextlib.AbstractContextManager[Any]:
    """A context in which the parameters are complete. `write`: all ranks get the values that rank 0 has set in it."""
    if stage < 3:
        return contextlib.nullcontext()
    import deepspeed

    context: contextlib.AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(
        parameters, modifier_rank=0 if write else None
    )
    return context
