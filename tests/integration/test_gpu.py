"""What one machine with GPUs can show: bf16 DeepSpeed steps, vLLM with CUDA graphs, weights over IPC and NCCL.

`make gpu-check` runs these; without a GPU they are skipped and say so.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from benchmarks.groups import make_manifest
from r1ray.run.metrics import read_events, read_metrics
from r1ray.util.machine import this_machine
from tests.integration.learner_support import fetcher, make_config, make_groups, make_model, run_ranks
from tests.integration.models import random_model, write_model
from tests.integration.test_loop import r1ray, train

pytestmark = [pytest.mark.integration, pytest.mark.gpu, pytest.mark.timeout(900)]


def need(gpus: int) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a driver that is too old for torch
        usable = torch.cuda.is_available()
    found = this_machine().gpus if usable else 0
    if found < gpus:
        pytest.skip(f"needs {gpus} GPU(s), torch can use {found} here")


def check_run(run: Path) -> None:
    rows = read_metrics(run)
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert all(row["sync/workers"] == 1 for row in rows)
    # bf16 on both sides, in kernels of their own: far looser than the 1e-4 of fp32.
    assert rows[0]["mismatch/mean"] < 0.05
    assert not [e for e in read_events(run) if e["kind"] in ("worker_lost", "learner_lost", "sync_incomplete")]
    assert r1ray("verify", run).returncode == 0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With heads of 64, for the GPU's attention kernels."""
    return write_model(random_model(seed=3, num_attention_heads=2), tmp_path_factory.mktemp("model"))


ON_GPU = ["model.dtype=bfloat16", "rollout.engine.enforce_eager=false", "rollout.engine.kv_cache_gib=1"]
ON_GPU += ["learner.zero_stage=1", "model.attention=auto"]


@pytest.mark.parametrize(("gpus", "share", "transport"), [(1, 0.5, "ipc"), (2, 1, "nccl")])
def test_learner_and_rollouts_share_one_gpu_or_have_their_own(
    model: Path, tmp_path: Path, gpus: int, share: float, transport: str
) -> None:
    need(gpus)
    placed = [f"rollout.num_gpus={share}", f"learner.num_gpus={share}", f"sync.transport={transport}"]
    done = train(tmp_path / "run", model, *ON_GPU, *placed)
    assert done.returncode == 0, done.stdout + done.stderr
    check_run(tmp_path / "run")


def bf16_step(rank: int, world_size: int, port: int, model: Path, zero_stage: int) -> list[str]:
    """Names of the weights that one step moved. In a process of its own: DeepSpeed is set up once in a process."""
    from learner.policy import PolicyRank

    config = make_config(model)
    config.model.dtype, config.learner.num_gpus, config.learner.zero_stage = "bfloat16", 1.0, zero_stage
    groups = make_groups(0)
    learner = PolicyRank(config=config, rank=rank, fetch=fetcher(groups))
    learner.setup("127.0.0.1", port)
    before = {name: tensor.float().cpu().clone() for name, tensor in learner.named_weights()}
    metrics = learner.train_step(make_manifest(0, groups))
    assert metrics["train/skipped"] == 0
    return [name for name, tensor in learner.named_weights() if not tensor.float().cpu().equal(before[name])]


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_a_bf16_step_moves_the_policy(tmp_path: Path, zero_stage: int) -> None:
    need(1)
    (moved,) = run_ranks(bf16_step, 1, make_model(tmp_path / "model"), zero_stage)
    assert moved
