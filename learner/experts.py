"""Expert parallelism: n consecutive ranks divide the experts of each layer among them, by DeepSpeed's AutoEP.

    tokens of every rank --exchange--> the ranks that hold their experts --exchange--> back        in each such layer

AutoEP replaces the layers of an empty model, so no rank allocates experts that are not its own. Rank 0 reads a layer's
experts as usual and sends them to all ranks, which keep their part. The names of AutoEP's tensors stay inside training
and checkpoints; weight syncs and exports get complete tensors under the model's own names.

Shapes: E experts of a layer, of which a rank has E / n; I intermediate size, H hidden size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from learner.checkpoint_format import persistent_buffers
from learner.empty import Weights, parameters_on_meta
from learner.parts import Part
from r1ray.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertGroup:
    """The ranks that hold all experts together. Producer: `expert_group`. Alone, a rank has all experts."""

    rank: int = 0  # of this process within the group
    size: int = 1
    replica: int = 0  # which of the groups
    replicas: int = 1

    @property
    def name(self) -> str:
        """The name of its process groups in DeepSpeed, which makes them when it wraps a divided model."""
        return f"ep_size_{self.size}"

    @property
    def handles(self) -> list[Any]:
        """Process groups of this rank: those with the other experts, and those with the same ones."""
        from deepspeed.utils import groups

        if self.size == 1:
            return []
        return [groups._get_expert_parallel_group(self.name), groups._get_expert_data_parallel_group(self.name)]

    def gather(self, part: Tensor) -> Tensor:
        """[E / n, ...] -> [E, ...]. A collective."""
        parts = [torch.empty_like(part) for _ in range(self.size)]
        torch.distributed.all_gather(parts, part.contiguous(), group=self.handles[0])
        return torch.cat(parts)

    def total_norm(self, parameters: Iterable[nn.Parameter]) -> Tensor:
        """The norm of all gradients, those of other ranks' experts included. A collective."""
        gradients: dict[bool, list[Tensor]] = {False: [], True: []}
        for parameter in parameters:
            assert parameter.grad is not None
            gradients[is_divided(parameter)].append(parameter.grad)
        norms = [torch.nn.utils.get_total_norm(gradients[divided]) for divided in (False, True)]
        if self.size == 1:
            return norms[0]
        squared = norms[1].square()
        torch.distributed.all_reduce(squared, group=self.handles[0])
        return (norms[0].square() + squared).sqrt()

    def place(self, part: Part) -> Part:
        """A part of this rank's experts as a part of all experts."""
        shape = (part.shape[0] * self.size, *part.shape[1:])
        first = self.rank * torch.Size(part.shape).numel()
        copies = (self.replica, self.replicas) if part.replicated else part.copies
        return replace(
            part, shape=shape, start=first + part.start, stop=first + part.stop, replicated=False, copies=copies
        )


ALL_EXPERTS = ExpertGroup()


def expert_group(rank: int, ranks: int, size: int) -> ExpertGroup:
    """The group of this rank: `size` consecutive ranks."""
    return ExpertGroup(rank=rank % size, size=size, replica=rank // size, replicas=ranks // size)


def is_divided(parameter: Any) -> bool:
    """Whether this rank has only its own experts of a parameter."""
    return not getattr(parameter, "allreduce", True)


def parameter_groups(parameters: list[Any], group: ExpertGroup) -> list[dict[str, Any]]:
    """Groups of an optimizer as DeepSpeed requires them: divided parameters apart from the others."""
    divided = [p for p in parameters if is_divided(p)]
    groups: list[dict[str, Any]] = [{"params": [p for p in parameters if not is_divided(p)]}]
    return [*groups, {"params": divided, "moe": True, "name": group.name}] if divided else groups


def divide(module: nn.Module, weights: Weights, group: ExpertGroup, device: torch.device) -> Weights:
    """Replace the experts' layers of an empty `module.hf` by those of this rank.

    Returns the values of the new module; for experts each call is a collective. Raises ConfigError if AutoEP has no
    preset for the model.
    """
    install(module, group)
    return _divided_weights(module, weights, group, device)


def install(module: Any, group: ExpertGroup) -> None:
    """The first half of `divide`, for a module that gets its values otherwise."""
    from deepspeed.module_inject.auto_ep import AutoEP
    from deepspeed.module_inject.auto_ep_config import parse_autoep_config

    settings = {"enabled": True, "autoep_size": group.size, "use_grouped_mm": torch.cuda.is_available()}
    auto = AutoEP(module.hf, parse_autoep_config(settings))
    try:
        with parameters_on_meta():
            auto.replace_moe_layers(auto.ep_parser(), group.size, group.rank)
    except ValueError as e:
        raise ConfigError(f"learner.expert_parallel = {group.size}: {e}") from e
    for layer in _layers(module).values():  # made beside a weight on meta
        layer.tokens_per_expert = torch.zeros(layer.num_experts)


def bind(module: nn.Module) -> None:
    """Give the layers of a divided module their process group, if DeepSpeed does not wrap it."""
    for layer in _layers(module).values():
        layer.set_deepspeed_parallelism()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """The tensor of the undivided model that a divided one is made of."""

    name: str
    experts: bool = False  # a rank has its own part of them
    half: int | None = None  # of `gate_up_proj` [E, 2 I, H]: 0 gate, 1 up


_SOURCES = {
    "router.gate.weight": _Source(name="gate.weight"),
    "router.e_score_correction_bias": _Source(name="gate.e_score_correction_bias"),
    "experts.w1": _Source(name="experts.gate_up_proj", experts=True, half=0),
    "experts.w3": _Source(name="experts.gate_up_proj", experts=True, half=1),
    "experts.w2": _Source(name="experts.down_proj", experts=True),
}


def _layers(module: nn.Module) -> dict[str, Any]:
    return {name: layer for name, layer in module.named_modules() if getattr(layer, "_is_autoep_layer", False)}


def _sources(module: nn.Module) -> dict[str, _Source]:
    """Name of a tensor of the divided module -> where it is from; other tensors are their own."""
    return {
        f"{prefix}.{leaf}": replace(source, name=f"{prefix}.{source.name}")
        for prefix in _layers(module)
        for leaf, source in _SOURCES.items()
    }


def _divided_weights(module: nn.Module, weights: Weights, group: ExpertGroup, device: torch.device) -> Weights:
    sources, parameters = _sources(module), dict(module.named_parameters())
    uses = Counter(source.name for source in sources.values())
    held: dict[str, Tensor] = {}  # until their last use

    def shared(name: str, like: Tensor, halves: int) -> Tensor:
        """The experts of all ranks, which rank 0 reads."""
        shape = (like.shape[0] * group.size, like.shape[1] * halves, like.shape[2])
        value = weights(name)
        if value is None:
            value = torch.empty(shape, dtype=like.dtype, device=device)
        value = value.to(device, like.dtype).contiguous()
        assert value.shape == shape, f"{name}: {tuple(value.shape)}, expected {shape}"
        torch.distributed.broadcast(value.view(-1).view(torch.uint8), 0)
        return value

    def read(name: str) -> Tensor | None:
        source = sources.get(name)
        if source is None or not source.experts:
            return weights(name if source is None else source.name)
        own = parameters[name]
        if source.name not in held:
            held[source.name] = shared(source.name, own, 1 if source.half is None else 2)
        uses[source.name] -= 1
        value = held[source.name] if uses[source.name] else held.pop(source.name)
        value = value[group.rank * len(own) : (group.rank + 1) * len(own)]
        return value if source.half is None else value.chunk(2, dim=1)[source.half]

    return read


def whole_parameters(module: nn.Module, group: ExpertGroup) -> Iterator[tuple[str, Tensor]]:
    """(name, complete parameter) as in the undivided module. A collective: every rank iterates to the end."""
    sources, parameters = _sources(module), dict(module.named_parameters())
    for name, parameter in parameters.items():
        source = sources.get(name)
        if source is None or not source.experts:
            yield name if source is None else source.name, parameter.data
        elif source.half is None:
            yield source.name, group.gather(parameter.data)
        elif source.half == 0:
            up = parameters[name.removesuffix("w1") + "w3"]
            yield source.name, torch.cat([group.gather(parameter.data), group.gather(up.data)], dim=1)


def whole_buffers(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, buffer) of those that a checkpoint holds, as in the undivided module."""
    sources = _sources(module)
    for name, buffer in persistent_buffers(module):
        yield sources[name].name if name in sources else name, buffer


def whole_shapes(module: nn.Module, group: ExpertGroup) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors of `whole_parameters` and `whole_buffers`, without a collective."""
    sources = _sources(module)
    shapes = {name: tuple(buffer.shape) for name, buffer in whole_buffers(module)}
    for name, parameter in module.named_parameters():
        shape = tuple(getattr(parameter, "ds_shape", parameter.shape))
        source = sources.get(name)
        if source is not None and source.experts:
            shape = (shape[0] * group.size, shape[1] * (1 if source.half is None else 2), *shape[2:])
        shapes[name if source is None else source.name] = shape
    return shapes
