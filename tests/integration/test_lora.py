"""Adapters: steps at every ZeRO stage, checkpoints, exports, and what vLLM serves of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from safetensors.torch import load_file
from torch import Tensor

from learner.batch import pack_tokens
from learner.lora import ADAPTER, ADAPTER_PARTS, adapted, adapters_off
from learner.release import find_weights, write_release
from learner.shard_file import read_tensors
from learner.zero_state import KINDS
from r1ray.types import Sampling
from tests.integration.learner_support import (
    LORA,
    make_groups,
    make_model,
    make_rank,
    remake,
    run_ranks,
    train_step,
)
from tests.integration.test_lora_gradient import ALL, adapted_policy

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

CPU = torch.device("cpu")
PEFT = Path(__file__).resolve().parents[2] / ".venv" / "peft"
RUN = "run-1"


# -- steps, checkpoints, exports
# ----------------------------------------------------------------------------------------


def trained(rank: int, world_size: int, port: int, model: str, cases: list[dict[str, Any]]) -> list[Any]:
    """Metrics, adapters and frozen weights after two steps of each case."""
    answers, learner = [], None
    stored = load_file(Path(model) / "model.safetensors")
    for case in cases:
        changes = {**LORA, "algorithm__kl_coefficient": 0.1, "learner__minibatches": 2, **case}
        if learner is None:
            learner = make_rank(rank, world_size, port, model, changes)
        else:
            remake(learner, model, changes)
        metrics = [train_step(learner, step, make_groups(step, seed=5)) for step in range(2)]
        adapters = learner._engine.adapters()
        sent = dict(learner.named_weights())
        assert sent.keys() == stored.keys(), "rollout workers get the names of the base model"
        apart = {name.removeprefix("hf.").rpartition(".")[0] + ".weight" for name in adapters}
        kept = all(torch.equal(sent[name].cpu().float(), stored[name]) for name in stored.keys() - apart)
        answers.append(
            {
                "metrics": [{k: v for k, v in m.items() if k != "learner/step_s"} for m in metrics],
                "adapters": {name: tensor.double().flatten().tolist() for name, tensor in adapters.items()},
                "kept": kept,
                "changed": sum(not torch.equal(sent[name].cpu().float(), stored[name]) for name in apart),
                "trained": sorted({name.rpartition(".")[2] for name, p in named(learner) if p.requires_grad}),
            }
        )
    assert learner is not None
    learner.close()
    return answers


def named(learner: Any) -> list[tuple[str, Any]]:
    return list(learner._engine.module.named_parameters())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("lora") / "model")


@pytest.fixture(scope="module")
def alone(model: Path) -> dict[str, Any]:
    """One rank, which shards nothing."""
    return run_ranks(trained, 1, str(model), [{"learner__zero_stage": 0}])[0][0]


@pytest.mark.parametrize("ranks", [1, 2])
def test_steps_at_every_zero_stage_are_those_of_one_rank(model: Path, alone: dict[str, Any], ranks: int) -> None:
    cases: list[dict[str, Any]] = [{"learner__zero_stage": stage} for stage in (0, 1, 2, 3)]
    if ranks == 2:
        cases.append({"learner__zero_stage": 2, "learner__sequence_parallel": 2, "learner__micro_batch_tokens": 48})
    for answer in run_ranks(trained, ranks, str(model), cases):
        for case, found in zip(cases, answer, strict=True):
            assert found["kept"], case
            assert found["changed"] == 14, case  # seven layers in each of two blocks
            assert found["trained"] == ["lora_A", "lora_B"]
            assert found["adapters"].keys() == alone["adapters"].keys()
            for name, values in alone["adapters"].items():
                np.testing.assert_allclose(found["adapters"][name], values, rtol=0, atol=3e-5, err_msg=f"{case} {name}")
            for step in range(2):
                expected, got = alone["metrics"][step], found["metrics"][step]
                for name in expected.keys() - {"batch/packed_tokens"}:
                    assert got[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-5), (case, step, name)


def test_the_reference_is_the_base_model(alone: dict[str, Any]) -> None:
    """B is zero at first, so that the policy is its own reference until the first optimizer step."""
    first, second = alone["metrics"]
    assert 0 < first["train/kl"] < second["train/kl"]  # a mean over two minibatches: exactly zero in the first
    assert first["train/grad_norm"] > 1e-3


def resumable(rank: int, world_size: int, port: int, model: str, dtype: str, stage: int, folder: str) -> Any:
    """Four steps with a checkpoint after the second; the last two again from it; an export of the end."""
    changes = {
        **LORA,
        "algorithm__kl_coefficient": 0.1,
        "learner__zero_stage": stage,
        "model__dtype": dtype,
        "run__deterministic": True,
    }
    learner = make_rank(rank, world_size, port, model, changes)
    steps = lambda *which: [train_step(learner, s, make_groups(s, seed=5)) for s in which]  # noqa: E731
    steps(0, 1)
    learner.save_checkpoint(Path(folder) / "step_000002", RUN)
    metrics = steps(2, 3)
    whole = state(learner)
    learner.export(Path(folder) / "final")
    remake(learner, model, changes)
    found = learner.load_latest(folder, RUN)
    again = steps(2, 3)
    same = {name: torch.equal(tensor, whole[name]) for name, tensor in state(learner).items()}
    for row in (*metrics, *again):
        del row["learner/step_s"]
    answer = {"same": same, "name": found["name"], "metrics": metrics == again, "skipped": metrics[-1]["train/skipped"]}
    learner.close()
    return answer


def state(learner: Any) -> dict[str, Tensor]:
    return {**learner._engine.adapters(), **{n: t.cpu().clone() for n, t in learner.named_weights()}}


@pytest.fixture(scope="module")
def run(model: Path) -> Path:
    """The folder of a run of two ranks at ZeRO 3, after whose resume every bit was the same."""
    folder = model.parent / "run"
    folder.mkdir()
    check_resume(run_ranks(resumable, 2, str(model), "float32", 3, str(folder)))
    return folder


def check_resume(answers: list[Any]) -> None:
    for answer in answers:
        assert (answer["name"], answer["metrics"], answer["skipped"]) == ("step_000002", True, 0.0)
        assert len(answer["same"]) > 14
        assert all(answer["same"].values()), answer["same"]


@pytest.mark.parametrize("stage", [1, 2])
def test_a_resume_in_bfloat16_has_the_same_bits(model: Path, tmp_path: Path, stage: int) -> None:
    check_resume(run_ranks(resumable, 2, str(model), "bfloat16", stage, str(tmp_path)))
    assert load_file(tmp_path / "final" / ADAPTER / "adapter_model.safetensors").popitem()[1].dtype == torch.bfloat16


def test_a_checkpoint_holds_adapters_only(run: Path) -> None:
    adapter = load_file(run / "final" / ADAPTER / "adapter_model.safetensors")
    names = [f"hf.{name.removeprefix('base_model.model.').removesuffix('.weight')}" for name in adapter]
    stored = [name for name, _ in read_tensors(sorted((run / "step_000002").glob("state-*.safetensors")))]
    assert sorted(stored) == sorted(f"{kind}/{name}" for name in names for kind in KINDS)
    assert not list((run / "step_000002").glob("reference-*"))


def test_the_export_is_merged_and_holds_the_adapter(model: Path, run: Path) -> None:
    final, base = load_file(run / "final" / "model-00001.safetensors"), load_file(model / "model.safetensors")
    adapter = load_file(run / "final" / ADAPTER / "adapter_model.safetensors")
    config = json.loads((run / "final" / ADAPTER / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 3, 6.0)
    assert config["target_modules"] == ALL
    assert final.keys() == base.keys()
    changed = {name for name in base if not torch.equal(final[name], base[name])}
    assert len(changed) == 14
    for name in changed:
        prefix = "base_model.model." + name.removesuffix(".weight")
        a, b = (adapter.pop(f"{prefix}.{part}.weight").double() for part in ADAPTER_PARTS)
        torch.testing.assert_close(final[name].double(), base[name] + 2.0 * b @ a, rtol=0, atol=1e-6)
    assert not adapter


def test_a_checkpoint_is_released_merged(model: Path, run: Path, tmp_path: Path) -> None:
    """By `r1ray export`: what the learner would have exported at that step."""
    weights = find_weights(tmp_path / "none", checkpoints=run, base=str(model), dtype="float32")
    write_release(weights, tmp_path / "out", dtype="float32", chat_template=None, card=lambda folder: "")
    answers = run_ranks(exported_again, 1, str(model), str(run), str(tmp_path / "again"))
    assert answers == ["step_000002"]
    found, expected = (load_file(tmp_path / name / "model-00001.safetensors") for name in ("out", "again"))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6)


def exported_again(rank: int, world_size: int, port: int, model: str, run: str, out: str) -> Any:
    """From two ranks at ZeRO 3 to one that shards nothing."""
    learner = make_rank(rank, world_size, port, model, {**LORA, "algorithm__kl_coefficient": 0.1})
    found = learner.load_latest(run, RUN)
    learner.export(out)
    learner.close()
    return found["name"]


PEFT_READS = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, adapter, final = sys.argv[1:]
ids = torch.arange(1, 30)[None]
with torch.no_grad():
    merged = AutoModelForCausalLM.from_pretrained(final)(input_ids=ids).logits
    plain = AutoModelForCausalLM.from_pretrained(base)
    without = plain(input_ids=ids).logits
    model = PeftModel.from_pretrained(plain, adapter)
    found = model(input_ids=ids).logits
    again = model.merge_and_unload()(input_ids=ids).logits
print(float((found - merged).abs().max()), float((again - merged).abs().max()), float((without - merged).abs().max()))
"""


@pytest.mark.skipif(
    not PEFT.is_dir(), reason="the optional packages of conf/pins/peft.txt are missing (make .venv/peft)"
)
def test_peft_reads_the_adapter_and_computes_the_merged_model(model: Path, run: Path) -> None:
    arguments = [str(model), str(run / "final" / ADAPTER), str(run / "final")]
    done = subprocess.run(
        [sys.executable, "-c", PEFT_READS, *arguments],
        env={"PYTHONPATH": str(PEFT), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, again, without = map(float, done.stdout.split())
    assert found < 1e-4
    assert again < 1e-4
    assert without > 1e-2


# -- vLLM
# -----------------------------------------------------------------------------------------------------------------


def exported(rank: int, world_size: int, port: int, model: str, out: str) -> Any:
    changes = {**LORA, "learner__optimizer__lr": 3e-2}
    learner = make_rank(rank, world_size, port, model, changes)
    for step in range(2):
        train_step(learner, step, make_groups(step, seed=5))
    learner.export(out)
    learner.close()


def test_vllm_serves_the_policy_with_its_adapters(ray_cluster: None, tmp_path: Path) -> None:
    """Log-probabilities of what it samples from the merged folder, against base and adapter apart."""
    from tests.integration.engine_actor import engine_actor
    from tests.integration.engine_host import config_for
    from tests.integration.models import random_model, write_model

    base = write_model(random_model(seed=0), tmp_path / "base")
    run_ranks(exported, 1, str(base), str(tmp_path / "final"))
    host = engine_actor().remote(config_for(tmp_path / "final"), str(tmp_path / "final"))
    prompts = [list(range(10, 20 + i)) for i in range(8)]
    sampled = ray.get(host.generate.remote(prompts, Sampling(temperature=0.7, max_new_tokens=24)), timeout=240)
    ray.kill(host)

    policy = adapted_policy(base)
    tensors = load_file(tmp_path / "final" / ADAPTER / "adapter_model.safetensors")
    for name, layer in adapted(policy).items():
        for part in ADAPTER_PARTS:
            key = f"base_model.model.{name.removeprefix('hf.')}.{part}.weight"
            getattr(layer, part).data.copy_(tensors[key])
    tokens = pack_tokens(
        [np.array(p, dtype=np.int32) for p in prompts], [c.token_ids for c in sampled], [0.7] * len(prompts), CPU
    )
    with torch.no_grad():
        found, _ = policy(tokens)
        with adapters_off(policy):
            without, _ = policy(tokens)
    served = torch.from_numpy(np.concatenate([c.behavior_logprobs for c in sampled]))
    print(f"\nlargest |vLLM - base and adapter|: {float((found - served).abs().max()):.1e}")
    assert float((found - served).abs().max()) < 1e-4
    assert float((without - served).abs().max()) > 1e-2
