"""Ranks that divide the experts of a mixture train like one rank that has all of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r1ray.types import RoutedExperts, ScoredGroup
from tests.integration.learner_support import make_groups, make_rank, remake, run_ranks, train_step
from tests.integration.models import random_experts, write_model

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

KINDS = ("qwen3_moe", "deepseek_v3")
LAYERS = 2  # of either model


def groups_of(step: int) -> list[ScoredGroup]:
    """Random groups whose experts were recorded: two of four in each layer."""
    rng = np.random.default_rng([9, step])

    def recorded(completion: Any) -> Any:
        tokens = len(completion.token_ids)
        ids = rng.permuted(np.tile(np.arange(4, dtype=np.uint8), (tokens, LAYERS, 1)), axis=-1)[:, :, :2]
        return dataclasses.replace(completion, experts=RoutedExperts(ids=np.ascontiguousarray(ids), every=1))

    groups = make_groups(step, seed=5)
    for i, group in enumerate(groups):
        completions = tuple(recorded(c) for c in group.rollout.completions)
        groups[i] = dataclasses.replace(group, rollout=dataclasses.replace(group.rollout, completions=completions))
    return groups


CASE = {"algorithm__kl_coefficient": 0.1, "learner__minibatches": 2, "algorithm__routing": "compare"}


def trained(rank: int, world_size: int, port: int, folder: str, cases: list[dict[str, Any]]) -> list[Any]:
    """Metrics and weights after two training steps, for each case; some save after the first and export at the end."""
    answers, learner = [], None
    for case in cases:
        model = str(Path(folder) / case["kind"])
        changes = {**CASE, **{key: value for key, value in case.items() if key not in ("kind", "saves")}}
        if learner is None:
            learner = make_rank(rank, world_size, port, model, changes)
        else:
            learner._folder = Path(model)
            learner.__dict__.pop("_format", None)  # of the other model
            remake(learner, model, changes)
        metrics = [train_step(learner, 0, groups_of(0))]
        if "saves" in case:
            learner.save_checkpoint(Path(folder) / case["saves"] / "step_000001", "run")
        metrics.append(train_step(learner, 1, groups_of(1)))
        if "saves" in case:
            learner.export(Path(folder) / "export")
        answers.append({"metrics": metrics, "weights": first_values(learner)})
    assert learner is not None
    learner.close()
    return answers


def first_values(learner: Any) -> dict[str, list[float]]:
    return {name: tensor.double().flatten()[:40].tolist() for name, tensor in learner.named_weights()}


def close(found: dict[str, Any], expected: dict[str, Any], what: Any) -> None:
    for got, wanted in zip(found["metrics"], expected["metrics"], strict=True):
        assert got.keys() == wanted.keys()
        assert wanted["mismatch/routing"] > 0.05
        for name in wanted.keys() - {"learner/step_s", "batch/packed_tokens"}:
            assert got[name] == pytest.approx(wanted[name], rel=5e-4, abs=5e-6), (what, name)
    assert found["weights"].keys() == expected["weights"].keys()
    for name, values in expected["weights"].items():
        np.testing.assert_allclose(found["weights"][name], values, rtol=0, atol=5e-5, err_msg=f"{what} {name}")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        write_model(random_experts(kind, 7), folder / kind)
    return folder


ALONE = [{"kind": kind} for kind in KINDS] + [{"kind": "qwen3_moe", "algorithm__routing": "replay"}]
STAGES = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 2)]
"""Which of the cases of one rank, and the ZeRO stage of two."""


@pytest.fixture(scope="module")
def alone(models: Path) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = run_ranks(trained, 1, str(models), ALONE)[0]
    return answers


@pytest.fixture(scope="module")
def divided(models: Path) -> list[list[dict[str, Any]]]:
    """By rank, then by STAGES. The second of them saves a checkpoint."""
    cases = [{**ALONE[case], "learner__expert_parallel": 2, "learner__zero_stage": stage} for case, stage in STAGES]
    cases[1]["saves"] = "checkpoints"
    return run_ranks(trained, 2, str(models), cases)


def test_steps_under_zero_0_to_2_are_those_of_one_rank(
    alone: list[dict[str, Any]], divided: list[list[dict[str, Any]]]
) -> None:
    for answer in divided:
        for (case, stage), found in zip(STAGES, answer, strict=True):
            close(found, alone[case], (ALONE[case], stage))


@pytest.mark.usefixtures("divided")
def test_an_export_loads_in_transformers(models: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    exported = AutoModelForCausalLM.from_pretrained(models / "export", dtype=torch.float32).state_dict()
    untrained = random_experts("deepseek_v3", 7).state_dict()
    assert exported.keys() == untrained.keys()
    for name, tensor in exported.items():
        assert torch.equal(tensor, untrained[name]) == name.endswith("e_score_correction_bias"), name
        torch.testing.assert_close(tensor, untrained[name], rtol=0, atol=0.02)  # a few steps at 1e-3


def resumed(rank: int, world_size: int, port: int, folder: str) -> list[Any]:
    """The second step of four ranks, from the checkpoint of two, without ZeRO and at stage 2."""
    model, learner, answers = str(Path(folder) / "deepseek_v3"), None, []
    for stage in (0, 2):
        changes = {**CASE, "learner__expert_parallel": 2, "learner__zero_stage": stage}
        if learner is None:
            learner = make_rank(rank, world_size, port, model, changes)
        else:
            remake(learner, model, changes)
        assert learner.load_latest(Path(folder) / "checkpoints", "run")["policy_version"] == 1
        metrics = [train_step(learner, 1, groups_of(1))]
        own = [p.numel() for name, p in learner._engine.module.named_parameters() if ".experts.w1" in name]
        answers.append({"metrics": metrics, "weights": first_values(learner), "own": own})
    assert learner is not None
    learner.close()
    return answers


@pytest.mark.usefixtures("divided")
def test_two_groups_continue_from_the_checkpoint_of_one(models: Path, alone: list[dict[str, Any]]) -> None:
    expected = {"metrics": alone[1]["metrics"][1:], "weights": alone[1]["weights"]}
    for answer in run_ranks(resumed, 4, str(models)):
        for stage, found in zip((0, 2), answer, strict=True):
            close(found, expected, stage)
            assert found["own"] == [2 * 32 * 64]  # two of four experts, in the only layer that has any
