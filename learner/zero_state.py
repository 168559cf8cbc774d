"""The float32 parameters and Adam moments that a rank holds, whatever DeepSpeed shards at each ZeRO stage."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from learner.parts import Part, whole

MOMENTS = ("exp_avg", "exp_avg_sq")
KINDS = ("weight", *MOMENTS)


def prepare(stage: int, zero_optimizer: Any, adam: Any) -> None:
    """Allocate zero moments for every shard; AdamW does so at its first step, after a checkpoint may be loaded."""
    for shard in _shards(stage, zero_optimizer):
        offloaded = type(adam).__name__ == "DeepSpeedCPUAdam"  # it counts in an int
        step: Any = 0 if offloaded else torch.zeros((), dtype=torch.float32, device=shard.device)
        adam.state[shard] = {"step": step, **{moment: torch.zeros_like(shard.data) for moment in MOMENTS}}
    if stage in (1, 2):
        zero_optimizer._lazy_init_hp_params_optimizer_state()  # links the parameters to the moments


def set_step(stage: int, zero_optimizer: Any, adam: Any, steps: int) -> None:
    """Set the number of steps of AdamW's bias correction."""
    for shard in _shards(stage, zero_optimizer):
        step = adam.state[shard]["step"]
        adam.state[shard]["step"] = torch.full_like(step, steps) if isinstance(step, Tensor) else steps


def _shards(stage: int, zero_optimizer: Any) -> list[Tensor]:
    """The tensors that AdamW updates on this rank."""
    if stage == 0:
        return [p for group in zero_optimizer.param_groups for p in group["params"]]
    if stage == 3:
        return list(zero_optimizer.fp32_partitioned_groups_flat)
    # ZeRO 1 with bfloat16 and float32 accumulation is another class than ZeRO 1 and 2 otherwise.
    name = "fp32_groups_flat_partition" if hasattr(zero_optimizer, "fp32_groups_flat_partition") else None
    return list(getattr(zero_optimizer, name or "single_partition_of_fp32_groups"))


def parts(stage: int, adam: Any, name: str, parameter: Any) -> Iterator[Part]:
    """This rank's part of a parameter's master weight and moments, named "<kind>/<name>"."""
    for kind in KINDS:
        if stage == 0:
            yield whole(f"{kind}/{name}", parameter if kind == "weight" else adam.state[parameter][kind])
        elif stage == 3:
            yield _partitioned(f"{kind}/{name}", parameter, kind)
        else:
            yield _fragment(f"{kind}/{name}", parameter, kind)


def _fragment(name: str, parameter: Any, kind: str) -> Part:
    """ZeRO 1 and 2 divide the flattened parameters of a group: this rank may have a piece of this one, or nothing."""
    mapping, values = parameter._hp_mapping, torch.empty(0)
    start = 0
    if mapping is not None:
        values = mapping.get_hp_fragment(None if kind == "weight" else kind).detach()  # AdamW's leaf requires gradients
        start = mapping.lp_fragment_address.start
    return Part(
        name=name,
        shape=tuple(parameter.shape),
        dtype=torch.float32,
        start=start,
        stop=start + values.numel(),
        replicated=False,
        read=lambda: values,
        write=lambda first, new: values[first : first + len(new)].copy_(new),
    )


def _partitioned(name: str, parameter: Any, kind: str) -> Part:
    """ZeRO 3 divides a flattened parameter into equal parts and pads the last one."""
    start, stop = bounds(parameter)
    read = partial(_read_partition, parameter, kind)

    def write(first: int, values: Tensor) -> None:
        from deepspeed import utils

        local = read()
        local[first : first + len(values)] = values.to(local.device)
        if kind == "weight":
            utils.safe_set_local_fp32_param(parameter, local)
        else:
            utils.safe_set_local_optimizer_state(parameter, local, kind)

    return Part(
        name=name,
        shape=tuple(parameter.ds_shape),
        dtype=torch.float32,
        start=start,
        stop=stop,
        replicated=False,
        read=lambda: read()[: stop - start],
        write=write,
    )


def _read_partition(parameter: Any, kind: str) -> Tensor:
    """With padding. On the parameter's device, so a copy if the optimizer is offloaded."""
    from deepspeed import utils

    if kind == "weight":
        found: Tensor = utils.safe_get_local_fp32_param(parameter)
    else:
        found = utils.safe_get_local_optimizer_state(parameter, kind)
    return found.detach()


def bounds(parameter: Any) -> tuple[int, int]:
    """Begin and end, without padding, of this rank's part of a parameter that ZeRO 3 has partitioned."""
    size, numel = parameter.ds_tensor.ds_numel, parameter.ds_numel
    start = min(size * torch.distributed.get_rank(), numel)
    return start, min(start + size, numel)


def copy_masters(stage: int, zero_optimizer: Any, parameters: list[Any]) -> None:
    """Have the parameters of forward passes follow the master weights. A collective at stages 1 and 2."""
    if stage in (1, 2):
        zero_optimizer.update_lp_params()
    elif stage == 3:
        for parameter in parameters:
            parameter.ds_tensor.data.copy_(_read_partition(parameter, "weight"))
            release_gathered(parameter)


def release_gathered(parameter: Any) -> None:
    """Drop the complete values that ZeRO 3 keeps of small parameters: they are gathered again when needed."""
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    if parameter.ds_status == ZeroParamStatus.AVAILABLE:
        parameter.partition()
