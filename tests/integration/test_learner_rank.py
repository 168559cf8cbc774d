"""PolicyRank end to end: steps, checkpoints across numbers of ranks and ZeRO stages, export, deadlines, learning."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.groups import make_manifest
from tests.integration.learner_support import (
    fetcher,
    free_port,
    make_groups,
    make_model,
    make_rank,
    remake,
    run_ranks,
    state_of,
    train_step,
)
from tests.sockets import listening

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

DECOUPLED = {
    "algorithm__importance": "decoupled",
    "algorithm__importance_correction": "truncated",
    "algorithm__kl_coefficient": 0.1,
    "algorithm__reference_refresh_steps": 2,
    "learner__minibatches": 2,
    "learner__micro_batch_tokens": 64,
    "learner__optimizer__schedule": "cosine",
    "run__deterministic": True,
}


def train(learner: Any, *steps: int) -> list[dict[str, float]]:
    answer = []
    for step in steps:
        groups = make_groups(step, seed=5)
        metrics = train_step(learner, step, groups)
        answer.append({k: v for k, v in metrics.items() if k != "learner/step_s"})
    return answer


def digest(learner: Any) -> str:
    sha = hashlib.sha256()
    for name, tensor in learner.named_weights():
        sha.update(name.encode() + tensor.cpu().float().numpy().tobytes())
    return sha.hexdigest()


def sums(learner: Any) -> dict[str, float]:
    return {name: float(tensor.double().abs().sum()) for name, tensor in learner.named_weights()}


# -- checkpoints ----------------------------------------------------------------------------------------------------


RUN = "run-1"


def uninterrupted(rank: int, world_size: int, port: int, model: str, changes: dict[str, Any], folder: str) -> Any:
    """Five steps, with a checkpoint after the third and an export at the end."""
    learner = make_rank(rank, world_size, port, model, changes)
    train(learner, 0, 1, 2)
    learner.save_checkpoint(Path(folder) / "step_000003", RUN)
    metrics = train(learner, 3, 4)
    learner.export(Path(folder) / "final")
    answer = {"metrics": metrics, "digest": digest(learner), "sums": sums(learner), "version": learner.policy_version}
    answer["listening"] = sorted({address for address, *_ in listening([psutil.Process()])})
    learner.close()
    return answer


def resumed(rank: int, world_size: int, port: int, model: str, changes: dict[str, Any], folder: str) -> Any:
    """The last two steps again, from the checkpoint."""
    learner = make_rank(rank, world_size, port, model, changes)
    learner.load_latest(folder, RUN)
    version = learner.policy_version
    metrics = train(learner, 3, 4)
    answer = {"metrics": metrics, "digest": digest(learner), "sums": sums(learner), "version": version}
    learner.close()
    return answer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("learner") / "model")


@pytest.fixture(scope="module")
def run(model: Path) -> dict[str, Any]:
    """An uninterrupted run of two ranks under ZeRO 3, the stage that shards most."""
    changes = {**DECOUPLED, "learner__zero_stage": 3}
    folder = model.parent / "checkpoints"
    folder.mkdir()
    return {"folder": folder, "answers": run_ranks(uninterrupted, 2, str(model), changes, str(folder))}


@pytest.mark.parametrize(("ranks", "stage"), [(1, 0), (1, 2), (2, 1), (2, 3), (3, 3)])
def test_resume_goes_on_as_if_nothing_had_happened(model: Path, run: dict[str, Any], ranks: int, stage: int) -> None:
    """Weights, moments, step count, learning rate and reference all come back, under other ranks and stages too."""
    answers = run_ranks(resumed, ranks, str(model), {**DECOUPLED, "learner__zero_stage": stage}, str(run["folder"]))
    wanted = run["answers"][0]
    for answer in answers:
        assert answer["version"] == 3
        for found, expected in zip(answer["metrics"], wanted["metrics"], strict=True):
            if ranks == 3:  # completions that share a prompt are divided otherwise
                expected = {**expected, "batch/packed_tokens": found["batch/packed_tokens"]}
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert answer["sums"] == pytest.approx(wanted["sums"], rel=1e-5)
    if (ranks, stage) == (2, 3):
        assert answers[0]["digest"] == wanted["digest"]  # to the bit


def test_ranks_agree_on_metrics_and_weights(run: dict[str, Any]) -> None:
    first, second = run["answers"]
    assert first == second
    assert first["version"] == 5
    assert {"train/kl", "train/correction", "mismatch/max", "staleness/log_ratio", "reward/part/accuracy"} <= set(
        first["metrics"][0]
    )


def test_no_rank_listens_on_the_network(run: dict[str, Any]) -> None:
    """The store of rank 0 and the sockets of gloo: the ranks met on the loopback address."""
    assert [answer["listening"] for answer in run["answers"]] == [["127.0.0.1"]] * 2


def test_a_checkpoint_in_which_a_byte_changes_is_passed_over(run: dict[str, Any], tmp_path: Path) -> None:
    import shutil

    from r1ray.run.checkpoints import find_latest

    torn = tmp_path / "step_000003"
    shutil.copytree(run["folder"] / "step_000003", torn)
    with (torn / "state-00001.safetensors").open("r+b") as file:
        file.seek(2000)
        byte = file.read(1)
        file.seek(2000)
        file.write(bytes([byte[0] ^ 1]))
    found = find_latest(tmp_path)
    assert found.path is None
    assert "state-00001.safetensors does not match the manifest" in found.warnings[0]


# -- export ---------------------------------------------------------------------------------------------------------


def test_exported_folder_is_a_model_with_the_learners_weights(model: Path, run: dict[str, Any]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = run["folder"] / "final"
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.dtype == torch.float32
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight  # still tied
    found = {name: float(p.detach().double().abs().sum()) for name, p in loaded.named_parameters()}
    assert found == pytest.approx(run["answers"][0]["sums"], rel=1e-6)
    assert list(found) == list(run["answers"][0]["sums"])  # the same names, in the same order
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"


# -- bfloat16, deadlines, errors ------------------------------------------------------------------------------------


def bfloat16(rank: int, world_size: int, port: int, model: str, folder: str) -> Any:
    answers = {}
    for stage in (1, 2, 3):
        changes = {"model__dtype": "bfloat16", "learner__zero_stage": stage, "learner__optimizer__lr": 1e-5}
        if stage == 1:
            learner = make_rank(rank, world_size, port, model, changes)
        else:
            remake(learner, model, changes)
        train(learner, 0, 1)
        learner.save_checkpoint(Path(folder) / f"stage{stage}" / "step_000002", RUN)
        answers[stage] = {
            "dtypes": sorted({str(t.dtype) for _, t in learner.named_weights()}),
            "metrics": train(learner, 2),
        }
        learner.load_latest(Path(folder) / f"stage{stage}", RUN)
        answers[stage]["again"] = train(learner, 2)
    learner.close()
    return answers


def test_bfloat16_keeps_float32_masters_through_a_checkpoint(model: Path, tmp_path: Path) -> None:
    """At lr 1e-5 an update is far below bfloat16's resolution: only the masters hold it."""
    from safetensors.torch import load_file

    for answer in run_ranks(bfloat16, 2, str(model), str(tmp_path)):
        for stage in ("1", "2", "3"):
            assert answer[stage]["dtypes"] == ["torch.bfloat16"]
            assert answer[stage]["metrics"] == answer[stage]["again"]
            assert answer[stage]["metrics"][0]["train/skipped"] == 0
    start = load_file(model / "model.safetensors")["model.embed_tokens.weight"].bfloat16().float()
    for stage in (1, 2, 3):
        stored = state_of(tmp_path / f"stage{stage}" / "step_000002")
        master = stored["state/weight/hf.model.embed_tokens.weight"]
        moved = (master - start).abs()
        assert 0 < float(moved.max()) < 1e-4
        assert not bool((master == master.bfloat16().float()).all())


COLLECTIVE_S = 5.0


def left_alone(rank: int, world_size: int, port: int, model: str, signals_port: int) -> Any:
    """Rank 1 never comes to the second collective; it stays alive until rank 0 has given up."""
    import deepspeed  # noqa: F401
    import torch

    from learner.policy import PolicyRank  # noqa: F401
    from r1ray.errors import DeadlineExceeded

    # The ranks' first meeting has the same deadline, and what they import may take longer: meet once that is done.
    patience = timedelta(seconds=120)
    signals = torch.distributed.TCPStore("127.0.0.1", signals_port, is_master=rank == 0, timeout=patience)
    signals.set(f"rank {rank} is here", "1")
    signals.wait([f"rank {r} is here" for r in range(world_size)], patience)
    learner = make_rank(rank, world_size, port, model, {"deadlines__collective_s": COLLECTIVE_S})
    if rank == 1:
        signals.wait(["rank 0 gave up"], patience)
        return None
    started = time.monotonic()
    try:
        train(learner, 0)
    except DeadlineExceeded as e:
        return {"seconds": time.monotonic() - started, "error": str(e)}
    finally:
        signals.set("rank 0 gave up", "1")
    return None


def test_a_collective_that_a_rank_does_not_join_ends_at_its_deadline(model: Path) -> None:
    answer, _ = run_ranks(left_alone, 2, str(model), free_port())
    assert answer is not None, "rank 0 trained without rank 1"
    assert COLLECTIVE_S - 0.5 < answer["seconds"] < 40.0
    assert "training step 0" in answer["error"]
    assert "deadlines.collective_s" in answer["error"]


def refused(rank: int, world_size: int, port: int, model: str) -> Any:
    from r1ray.errors import IntegrityError

    learner = make_rank(rank, world_size, port, model, {})
    groups = make_groups(0)
    manifest = make_manifest(0, groups)
    messages = []
    for bad_manifest, bad_groups in (
        (make_manifest(4, groups), groups),
        (manifest, make_groups(0, seed=9)),
    ):
        learner._fetch = fetcher(bad_groups)
        with pytest.raises(IntegrityError) as error:
            learner.train_step(bad_manifest)
        messages.append(str(error.value))
    messages.append(str(learner.policy_version))
    learner.close()
    return messages


def test_manifests_of_another_step_and_payloads_that_contradict_are_refused(model: Path) -> None:
    wrong_step, wrong_payload, version = run_ranks(refused, 1, str(model))[0]
    assert "step 4" in wrong_step
    assert "policy 0" in wrong_step
    assert "0-0" in wrong_payload
    assert version == "0"
