"""What one machine with one or two GPUs can show; the docstring of each check says what it proves.

`make gpu-check` runs these; without a GPU they are skipped and say so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import ray

from r1ray.run.metrics import read_events, read_metrics
from r1ray.util.vllm_environment import GPU_ENVIRONMENT
from tests.integration.engine_host import EngineHost, Senders, config_for, mismatch
from tests.integration.gpu_support import ON_ONE_GPU, need, norms_agree, one_step
from tests.integration.learner_support import LORA, make_model, run_ranks
from tests.integration.models import random_model, write_before_and_after, write_model
from tests.integration.test_loop import r1ray, train
from tests.integration.test_weight_sync_exact import PROMPTS, SAMPLED

pytestmark = [pytest.mark.integration, pytest.mark.gpu, pytest.mark.timeout(900)]


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


DIFFERENCES = ("sync.encoding=delta", "sync.senders=all")


@pytest.mark.parametrize(
    ("gpus", "share", "transport", "extra"),
    [(1, 0.5, "ipc", ()), (2, 1, "nccl", ()), (1, 0.5, "gloo", DIFFERENCES)],
)
def test_learner_and_rollouts_share_one_gpu_or_have_their_own(
    model: Path, tmp_path: Path, gpus: int, share: float, transport: str, extra: tuple[str, ...]
) -> None:
    """Proves a whole run: bf16 on both sides, and weights through one GPU's memory (ipc), over NCCL, or as differences
    through host memory (gloo)."""
    need(gpus)
    placed = [f"rollout.num_gpus={share}", f"learner.num_gpus={share}", f"sync.transport={transport}", *extra]
    done = train(tmp_path / "run", model, *ON_GPU, *placed)
    assert done.returncode == 0, done.stdout + done.stderr
    check_run(tmp_path / "run")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """With heads of 32, for the GPU's attention kernels."""
    return str(make_model(tmp_path_factory.mktemp("small"), hidden_size=128, intermediate_size=96))


@pytest.fixture(scope="module")
def reference(small: str) -> dict[str, Any]:
    """The step on a CPU in float32, for checks on a GPU."""
    need(1)
    (step,) = run_ranks(one_step, 1, small, {})
    return step


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_a_bf16_step_moves_the_policy_by_the_gradient_of_the_cpu(
    small: str, reference: dict[str, Any], zero_stage: int
) -> None:
    """Proves the attention kernel for packed rows, recomputation and the blocks of logits on CUDA."""
    need(1)
    steps = run_ranks(one_step, 1, small, {**ON_ONE_GPU, "learner__zero_stage": zero_stage})
    assert steps[0]["moved"]
    norms_agree(steps, reference, within=0.03)


def test_the_memory_of_a_step_is_within_the_plan(small: str) -> None:
    """Proves the planner's model of a rank's device memory, for a small model."""
    need(1)
    (step,) = run_ranks(one_step, 1, small, ON_ONE_GPU)
    assert step["peak"] <= step["planned"] + 2**26


def test_adapters_move_and_the_weights_below_them_do_not(small: str) -> None:
    """Proves `model.lora` on CUDA: frozen weights keep every bit."""
    need(1)
    (step,) = run_ranks(one_step, 1, small, {**ON_ONE_GPU, **LORA})
    assert step["moved"]
    assert all("proj" in name for name in step["moved"])


@pytest.mark.parametrize("offloaded", ["learner__offload_optimizer", "learner__offload_parameters"])
def test_an_offloaded_step_has_the_gradient_of_the_cpu(small: str, reference: dict[str, Any], offloaded: str) -> None:
    """Proves DeepSpeed's optimiser, and parameters, in host memory."""
    need(1)
    norms_agree(
        run_ranks(one_step, 1, small, {**ON_ONE_GPU, "learner__zero_stage": 3, offloaded: True}), reference, within=0.03
    )


@pytest.mark.parametrize(
    "changes",
    [{"learner__zero_stage": 3}, {"learner__sequence_parallel": 2}, {"learner__sequence_parallel": 2, **LORA}],
)
def test_two_gpus_have_the_gradient_of_one(small: str, changes: dict[str, Any]) -> None:
    """Proves loading, ZeRO's collectives and the exchanges of a sequence group over NCCL."""
    need(2)
    alone = {**ON_ONE_GPU, **{key: value for key, value in changes.items() if key != "learner__sequence_parallel"}}
    (expected,) = run_ranks(one_step, 1, small, alone)
    norms_agree(run_ranks(one_step, 2, small, {**ON_ONE_GPU, **changes}), expected, within=0.02)


@pytest.mark.parametrize("processes", [1, 2])
def test_an_engine_gets_weights_beside_generation_and_labels_every_token(
    ray_cluster: None, tmp_path: Path, processes: int
) -> None:
    """Proves CUDA graphs, asynchronous scheduling and, on two GPUs, tensor parallelism under a change of weights."""
    need(processes)
    base, trained, weights = write_before_and_after(random_model(seed=0, num_attention_heads=2), tmp_path)
    config = config_for(base)
    config.rollout.num_gpus, config.rollout.engine.tensor_parallel_size = 1.0, processes
    config.rollout.engine.enforce_eager, config.sync.digest = False, "full" if processes == 1 else "wire"
    made = ray.remote(EngineHost).options(num_gpus=processes, runtime_env={"env_vars": dict(GPU_ENVIRONMENT)})
    host = made.remote(config, str(base))
    ray.get(host.generate.remote(PROMPTS[:1], SAMPLED), timeout=400)
    publisher = Senders(weights)
    rendezvous = publisher.open_epoch(1, processes)
    under_way = host.receive.remote(rendezvous, publisher.layout, 5, PROMPTS, SAMPLED)
    sent = publisher.send(weights)
    applied, spanning = ray.get(under_way, timeout=120)
    ray.kill(host)
    assert applied.digest == sent.digest
    assert any(len(c.version_spans) == 2 for c in spanning)
    assert mismatch(trained, PROMPTS, spanning, version=5, temperature=0.7) < 1e-2  # TF32 and other kernels


def test_a_deterministic_run_repeats_to_the_bit(model: Path, tmp_path: Path) -> None:
    """Proves `run.deterministic` on CUDA, engine and learner together."""
    need(1)
    exact = ["run.deterministic=true", "queue.max_staleness=0", "rollout.num_gpus=0.5", "learner.num_gpus=0.5"]
    runs = [tmp_path / "first", tmp_path / "second"]
    for run in runs:
        done = train(run, model, *ON_GPU, *exact, "sync.transport=ipc")
        assert done.returncode == 0, done.stdout + done.stderr
    first, second = ([(row["reward/mean"], row["train/grad_norm"]) for row in read_metrics(run)] for run in runs)
    assert first == second


def test_the_doctor_finds_no_error() -> None:
    """Proves that driver, torch and vLLM's build belong together."""
    need(1)
    done = r1ray("doctor", "--json")
    assert (done.returncode, json.loads(done.stdout)["errors"]) == (0, 0), done.stdout
