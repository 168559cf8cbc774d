"""Read and write complete float32 parameters and Adam moments, whatever shards DeepSpeed keeps at each ZeRO stage.

Every function is a collective. Shards depend on the number of ranks and the stage; these tensors do not.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq")


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


def read(stage: int, adam: Any, parameter: Any, kind: str) -> Tensor:
    """The complete float32 tensor: the master weight if `kind` is "weight", else the moment of that name."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    if stage == 0:
        whole: Tensor = parameter.data if kind == "weight" else adam.state[parameter][kind]
        return whole
    return safe_get_full_fp32_param(parameter) if kind == "weight" else safe_get_full_optimizer_state(parameter, kind)


def write(stage: int, adam: Any, parameter: Any, kind: str, value: Tensor) -> None:
    """Store a complete float32 tensor, equal on every rank, for `read`."""
    from deepspeed import utils

    if stage == 0:
        read(stage, adam, parameter, kind).copy_(value)
    elif stage == 3:
        local = _own_part(value, parameter.ds_tensor.numel())
        if kind == "weight":
            utils.safe_set_local_fp32_param(parameter, local)
        else:
            utils.safe_set_local_optimizer_state(parameter, local, kind)
    elif kind == "weight":
        utils.safe_set_full_fp32_param(parameter, value)
    else:
        utils.safe_set_full_optimizer_state(parameter, value, kind)


def _own_part(value: Tensor, size: int) -> Tensor:
    """This rank's part: ZeRO 3 splits a flattened parameter into equal parts and pads the last one."""
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return F.pad(value.flatten(), (0, size * ranks - value.numel())).narrow(0, size * rank, size)
