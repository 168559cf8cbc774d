"""Models without values: built on every rank, filled on rank 0, and sent to the others or partitioned.

    empty_model()   modules with parameters on `meta`, from config.json only
    materialize()   one parameter after the other: allocated, filled on rank 0, partitioned by ZeRO 3

A parameter keeps its identity (`torch.utils.swap_tensors`), so tied ones stay tied and an optimizer may hold it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from learner.block_fp8 import without_quantization
from learner.checkpoint_format import persistent_buffers
from r1ray.config.schema import ModelConfig
from r1ray.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Weights = Callable[[str], Tensor | None]
"""Name of a parameter or persistent buffer -> its value, or None on the ranks that get it from rank 0."""


def empty_model(auto: Any, model: ModelConfig, path: Path, *, attention: str, kind: str, **settings: Any) -> Any:
    """The model that `auto`, a class such as AutoModelForCausalLM, makes for the folder `path`; its parameters are on
    `meta`.

    Reads no weights. Buffers that no checkpoint holds have their values. `settings` change its configuration. Raises
    ConfigError if the folder is not `kind`, e.g. "a causal language model".
    """
    from transformers import AutoConfig

    trust = model.trust_remote_code
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=trust, **settings)
        with parameters_on_meta():
            hf = auto.from_config(
                config, dtype=DTYPES[model.dtype], attn_implementation=attention, trust_remote_code=trust
            )
    except (OSError, ValueError) as e:
        raise ConfigError(f"model.path = {path} cannot be loaded as {kind}: {e}") from e
    without_quantization(hf.config)
    _keep_float32(hf, DTYPES[model.dtype])
    return hf


@contextlib.contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Modules that are built in this context have their parameters on `meta`, and their buffers as usual."""
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:  # one that is tied is there already
            parameter = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def materialize(
    module: nn.Module,
    weights: Weights,
    *,
    device: torch.device,
    partition: Callable[[nn.Parameter], None] | None = None,
) -> None:
    """Give the parameters of `module` that are on `meta`, and the buffers of its checkpoint, their values on `device`.

    Where `weights` returns None, a parameter has arbitrary values: DeepSpeed sends those of rank 0 when it partitions
    or wraps the module. `partition` is called with each parameter; this rank holds at most one complete one then.
    """
    for name, parameter in module.named_parameters():
        if parameter.is_meta:
            real = nn.Parameter(torch.empty_like(parameter, device=device), requires_grad=parameter.requires_grad)
            _fill(real, weights(name))
            real.__dict__.update(parameter.__dict__)  # what DeepSpeed notes about it
            torch.utils.swap_tensors(parameter, real)
            del real
        if partition is not None:
            partition(parameter)
    for name, buffer in persistent_buffers(module):
        _fill(buffer, weights(name))
    for buffer in module.buffers():
        buffer.data = buffer.data.to(device)


def share_buffers(module: nn.Module) -> None:
    """Give the buffers that a checkpoint holds the values of rank 0. A collective."""
    for _, buffer in persistent_buffers(module):
        torch.distributed.broadcast(buffer.data.reshape(-1).view(torch.uint8), 0)


def _fill(tensor: Tensor, value: Tensor | None) -> None:
    if value is not None:
        tensor.data.copy_(value)


def dtype_plan(hf: Any, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """Patterns of the names of tensors that transformers keeps in another type than `dtype`."""
    plan: dict[str, torch.dtype] = hf._get_dtype_plan(dtype)
    return plan


def _keep_float32(hf: Any, dtype: torch.dtype) -> None:
    """Convert the tensors whose types `from_pretrained` would choose by their names."""
    from transformers.core_model_loading import build_glob_alternation

    plan = dtype_plan(hf, dtype)
    if not plan:
        return
    pattern, of_group, _ = build_glob_alternation(list(plan))
    for name, tensor in [*hf.named_parameters(), *persistent_buffers(hf)]:
        if (match := pattern.search(name)) is not None and match.lastgroup is not None:
            tensor.data = tensor.data.to(plan[of_group[match.lastgroup]])
