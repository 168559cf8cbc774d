"""What the checks on GPUs measure. The same functions run on a CPU (`test_gpu_support.py`), so that they work there."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from r1ray.models.folder import read_shape
from r1ray.preflight.memory import learner_bytes
from r1ray.util.machine import this_machine
from tests.integration.learner_support import make_groups, make_rank, train_step

ON_ONE_GPU: dict[str, Any] = {"model__dtype": "bfloat16", "learner__num_gpus": 1.0, "learner__zero_stage": 1}
"""Changes to a learner's configuration: as on GPUs."""


def need(gpus: int) -> None:
    """Skip the test on a machine with fewer."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a driver that is too old for torch
        usable = torch.cuda.is_available()
    found = this_machine().gpus if usable else 0
    if found < gpus:
        pytest.skip(f"needs {gpus} GPU(s), torch can use {found} here")


def one_step(rank: int, world_size: int, port: int, model: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Train a step in a process of its own: what it moved, the norm of its gradient, the memory that it took.

    `moved` and `kept`: names of weights that the step changed, or left as they were, to the bit. `peak` and `planned`:
    bytes on the device by torch's allocator and by the planner; 0 on a CPU.
    """
    import torch

    learner = make_rank(rank, world_size, port, model, changes)
    device = learner._engine.device
    before = {name: tensor.float().cpu().clone() for name, tensor in learner.named_weights()}
    metrics = train_step(learner, 0, make_groups(0))
    after = {name: tensor.float().cpu() for name, tensor in learner.named_weights()}
    cuda = device.type == "cuda"
    planned, _ = learner_bytes(learner._config, read_shape(Path(model)))
    return {
        "moved": [name for name in after if not after[name].equal(before[name])],
        "kept": [name for name in after if after[name].equal(before[name])],
        "grad_norm": metrics["train/grad_norm"],
        "skipped": metrics["train/skipped"],
        "peak": torch.cuda.max_memory_allocated(device) if cuda else 0,
        "planned": sum(planned.values()) if cuda else 0,
    }


def norms_agree(found: Sequence[dict[str, Any]], expected: dict[str, Any], *, within: float) -> None:
    """All ranks report one norm, that of `expected` but for `within` of it, and skipped nothing."""
    assert {step["skipped"] for step in found} == {0}
    norms = {step["grad_norm"] for step in found}
    assert len(norms) == 1
    assert norms.pop() == pytest.approx(expected["grad_norm"], rel=within)
