"""The gradient does not depend on how a minibatch is divided: ranks, micro-batches, packing, shared prompts, silent
completions left out, ZeRO stage. And NaN changes nothing."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from benchmarks.groups import make_manifest
from r1ray.types import ScoredGroup
from tests.integration.learner_support import fetcher, load_policy, make_config, make_groups, make_model, run_ranks

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

STAGES = {1: (0, 1, 2, 3), 2: (0, 1, 2, 3)}
KL, ENTROPY = 0.3, 0.05
VARIANTS: dict[str, dict[str, Any]] = {
    "all terms": {"kl": KL, "entropy": ENTROPY, "share": None, "tokens": 41},
    "some silent": {"kl": 0.0, "entropy": 0.0, "share": None, "tokens": 49},
    "some silent, prompts apart": {"kl": 0.0, "entropy": 0.0, "share": False, "tokens": 38},
}
"""`tokens` of a micro-batch are chosen so that the two ranks need different numbers of micro-batches."""


def groups_of(variant: str) -> list[ScoredGroup]:
    """Where some completions are to be silent: one group earned the same for all, another its mean for two of four."""
    groups = make_groups(0)
    if VARIANTS[variant]["kl"] == 0:
        for g, rewards in ((1, (0.5, 0.5, 0.5, 0.5)), (2, (0.5, 1.0, 1.5, 1.0))):
            scores = tuple(dataclasses.replace(s, reward=r) for s, r in zip(groups[g].scores, rewards, strict=True))
            groups[g] = dataclasses.replace(groups[g], scores=scores)
    return groups


def expected_gradient(folder: Path, out: Path, variant: str) -> None:
    """The gradient by transformers alone: one sequence at a time, full logits, one sum with global denominators."""
    import torch
    from transformers import AutoModelForCausalLM

    config = make_config(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    reference = AutoModelForCausalLM.from_pretrained(folder.parent / "reference", dtype=torch.float32)
    groups, kl_coefficient, entropy_coefficient = (
        groups_of(variant),
        VARIANTS[variant]["kl"],
        VARIANTS[variant]["entropy"],
    )
    total = sum(len(c.token_ids) for g in groups for c in g.rollout.completions)
    for group in groups:
        rewards = np.array([s.reward for s in group.scores])
        for i, completion in enumerate(group.rollout.completions):
            prompt = group.rollout.prompt.token_ids
            ids = torch.tensor(np.concatenate([prompt, completion.token_ids]), dtype=torch.int64)[None]
            rows = slice(len(prompt) - 1, ids.shape[1] - 1)
            log_p = (model(ids).logits[0, rows] / group.rollout.sampling.temperature).log_softmax(-1)
            with torch.no_grad():
                log_ref = (reference(ids).logits[0, rows] / group.rollout.sampling.temperature).log_softmax(-1)
            index = torch.tensor(completion.token_ids, dtype=torch.int64)[:, None]
            new, ref = log_p.gather(1, index)[:, 0], log_ref.gather(1, index)[:, 0]
            ratio = (new - torch.tensor(completion.behavior_logprobs)).exp()
            advantage = (rewards[i] - rewards.mean()) / rewards.std() if rewards.std() else 0.0
            policy = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            kl = (ref - new).exp() - (ref - new) - 1
            entropy = -(log_p.exp() * log_p).sum(-1)
            ((policy + kl_coefficient * kl - entropy_coefficient * entropy).sum() / total).backward()
    assert config.algorithm.loss_aggregation == "token"
    save_file({name: p.grad for name, p in model.named_parameters()}, out)


def gradients_of_all_stages(rank: int, world_size: int, port: int, model: str) -> dict[str, Any]:
    import torch

    from learner.group import init_process_group

    torch.set_num_threads(1)
    device = init_process_group(rank=rank, world_size=world_size, address="127.0.0.1", port=port, timeout_s=60)
    answer = {}
    for stage in STAGES[world_size]:
        for variant in VARIANTS:
            answer[f"{stage} {variant}"] = one_stage(rank, world_size, stage, Path(model), variant, device)
    return answer


def one_stage(rank: int, world_size: int, stage: int, model: Path, variant: str, device: Any) -> dict[str, Any]:
    import torch
    from deepspeed.utils import safe_get_full_grad

    from learner.assemble import batch_advantages
    from learner.engine import Engine, gathered
    from learner.model_folder import no_values
    from learner.objective import Denominators
    from learner.policy import PolicyRank

    settings = VARIANTS[variant]
    expected = load_file(model.parent / f"{variant}.safetensors")
    config = make_config(
        model,
        learner__ranks=world_size,
        learner__zero_stage=stage,
        learner__micro_batch_tokens=settings["tokens"],
        learner__shared_prompts=settings["share"],
        algorithm__kl_coefficient=settings["kl"],
        algorithm__entropy_coefficient=settings["entropy"],
    )
    engine = Engine(
        load_policy(config.model, model),
        weights=no_values,
        model=config.model,
        learner=config.learner,
        device=device,
        world_size=world_size,
    )
    groups = groups_of(variant)
    learner = PolicyRank(config=config, rank=rank, fetch=fetcher(groups))
    learner.attach(engine)
    if settings["kl"]:
        assert learner._reference is not None
        other = dict(load_policy(config.model, model.parent / "reference").named_parameters())
        for name, parameter in learner._reference.parameters():
            with gathered([parameter], stage, write=True):
                parameter.data.copy_(other[name])
    manifest = make_manifest(0, groups)
    advantages = batch_advantages(manifest, learner._advantage, config)
    plans = learner._plan(manifest, advantages)
    sums = learner._new_sums()
    minibatches = learner._pack(manifest, plans, advantages, sums)
    learner._add_reference_and_proximal_logprobs(minibatches)
    total = sum(sum(g.completion_tokens) for g in manifest.groups)
    counted = Denominators(tokens=total, sequences=16)

    def loss_of(network: Any, batch: Any) -> Any:
        return learner._objective.loss(network, batch, counted, sums, unchanged_version=0)

    engine.accumulate(minibatches[0], loss_of)
    worst, squares = 0.0, 0.0
    for name, parameter in engine.module.named_parameters():
        gradient = safe_get_full_grad(parameter)
        worst = max(worst, float((gradient - expected[name.removeprefix("hf.")]).abs().max()))
        squares += float(gradient.double().square().sum())
    report = engine.apply(lr=1e-3)
    before = weights_of(engine)
    nan_on_rank_0 = engine.step(minibatches[0], lambda n, b: loss_of(n, b) * (math.nan if rank == 0 else 1.0), lr=1e-3)
    infinite = engine.step(minibatches[0], lambda n, b: loss_of(n, b) + (math.inf if rank == 0 else 0.0), lr=1e-3)
    unchanged = all(torch.equal(a, b) for a, b in zip(before, weights_of(engine), strict=True))
    again = engine.step(minibatches[0], loss_of, lr=1e-3)
    moved = max(float((a - b).abs().max()) for a, b in zip(before, weights_of(engine), strict=True))
    return {
        "worst": worst,
        "norm": math.sqrt(squares),
        "reported_norm": report.grad_norm,
        "applied": [report.applied, nan_on_rank_0.applied, infinite.applied, again.applied],
        "steps": engine.applied_steps,
        "unchanged": unchanged,
        "moved": moved,
        "sequences": sum(len(b) for r in plans[0].micro_batches for b in r),
        "shared": [b.tokens.layout.boundaries is None for b in minibatches[0] if b.sequences],
        "micro_batches": [len([b for b in plans[0].micro_batches[r] if b]) for r in range(world_size)],
        "sum_of_weights": [float(w.double().sum()) for w in weights_of(engine)],
    }


def weights_of(engine: Any) -> list[Any]:
    return [tensor.clone() for _, tensor in engine.full_parameters()]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("gradient")
    model = make_model(folder / "model")
    make_model(folder / "reference", seed=12)
    for variant in VARIANTS:
        expected_gradient(model, folder / f"{variant}.safetensors", variant)
    return {n: run_ranks(gradients_of_all_stages, n, str(model)) for n in STAGES}


CASES = [(ranks, f"{stage} {variant}") for ranks, stages in STAGES.items() for stage in stages for variant in VARIANTS]


@pytest.mark.parametrize(("ranks", "case"), CASES)
def test_gradient_is_that_of_one_sequence_at_a_time(answers: Any, ranks: int, case: str) -> None:
    for answer in answers[ranks]:
        assert answer[case]["worst"] < 1e-6
        assert answer[case]["norm"] > 0.1  # the comparison is not one of zeros


@pytest.mark.parametrize(
    ("variant", "sequences", "shared"),
    [("all terms", 16, True), ("some silent", 12, True), ("some silent, prompts apart", 12, False)],
)
def test_silent_completions_were_left_out_and_prompts_shared(
    answers: Any, variant: str, sequences: int, shared: bool
) -> None:
    """Three of the four equal ones and one of the two average ones are left out; the others stand for them."""
    assert answers[2][0][f"0 {variant}"]["sequences"] == sequences
    assert set(answers[2][0][f"0 {variant}"]["shared"]) == {shared}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_cut_was_uneven(answers: Any, variant: str) -> None:
    """Two ranks with different numbers of micro-batches: one of them ran an empty one."""
    counts = answers[2][0][f"2 {variant}"]["micro_batches"]
    assert counts[0] != counts[1]
    assert min(counts) >= 2


@pytest.mark.parametrize(("ranks", "case"), CASES)
def test_reported_norm_is_the_norm_before_clipping(answers: Any, ranks: int, case: str) -> None:
    for answer in answers[ranks]:
        assert answer[case]["reported_norm"] == pytest.approx(answer[case]["norm"], rel=1e-5)


@pytest.mark.parametrize(("ranks", "case"), CASES)
def test_a_gradient_that_is_not_finite_on_one_rank_is_skipped_on_all(answers: Any, ranks: int, case: str) -> None:
    for answer in answers[ranks]:
        assert answer[case]["applied"] == [True, False, False, True]
        assert answer[case]["steps"] == 2
        assert answer[case]["unchanged"]
        assert answer[case]["moved"] > 1e-4  # and the next step is applied again


@pytest.mark.parametrize(("ranks", "case"), CASES)
def test_two_optimiser_steps_end_in_the_same_weights(answers: Any, ranks: int, case: str) -> None:
    _, variant = case.split(" ", 1)
    one = answers[1][0][f"0 {variant}"]["sum_of_weights"]
    for answer in answers[ranks]:
        assert answer[case]["sum_of_weights"] == pytest.approx(one, abs=1e-4)
