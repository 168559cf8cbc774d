"""Routers whose choices are compared with recorded ones, or replaced by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from learner.batch import MicroBatch, Sequence, make_micro_batch
from learner.metrics import MetricSums
from learner.routing import ROUTING, Routing, check_replayable
from r1ray.errors import ConfigError, IntegrityError
from r1ray.types import RoutedExperts
from tests.integration.learner_support import load_policy, make_config
from tests.integration.models import random_experts, random_model, write_model
from tests.integration.test_shared_prompts import in_float64

CPU = torch.device("cpu")
KINDS = ["qwen3_moe", "deepseek_v3"]
LENGTHS = (5, 9, 3)
LAYERS = {"qwen3_moe": [0, 1], "deepseek_v3": [1]}  # those with experts
VERSION = 4


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("experts")
    return {kind: write_model(random_experts(kind, 3), folder / kind) for kind in KINDS}


def policy(folder: Path, routing: str, **changes: Any) -> Any:
    module = load_policy(make_config(folder, **changes).model, folder)
    if routing != "ignore":
        module.routing = Routing(module.hf, replay=routing == "replay")
    return module


def batch_of(
    experts: list[RoutedExperts | None], groups: list[int] | None = None, version: int = VERSION
) -> MicroBatch:
    """Three completions of one prompt."""
    rng = np.random.default_rng(8)
    prompt = rng.integers(0, 200, 6, dtype=np.int32)
    sequences = [
        Sequence(
            prompt=prompt,
            completion=rng.integers(0, 200, n, dtype=np.int32),
            temperature=1.0,
            behavior_logprobs=np.zeros(n, dtype=np.float32),
            versions=np.full(n, version),
            advantage=1.0,
            trained=True,
            represents=1 + s,
            experts=e,
        )
        for s, (n, e) in enumerate(zip(LENGTHS, experts, strict=True))
    ]
    return make_micro_batch(sequences, CPU, groups=groups)


def own_choices(folder: Path) -> list[RoutedExperts]:
    """What the routers of the model choose, read where the experts take it."""
    module = policy(folder, "ignore")
    batch, seen = batch_of([None] * 3), {}

    def note(layer: int) -> Any:
        return lambda _, inputs: seen.update({layer: inputs[1]})

    for i, layer in enumerate(module.hf.model.layers):
        if hasattr(layer.mlp, "experts"):
            layer.mlp.experts.register_forward_pre_hook(note(i))
    with torch.no_grad():
        module(batch.tokens)
    ids_TLK = torch.zeros(sum(LENGTHS), len(module.hf.model.layers), 2, dtype=torch.int64)
    for i, ids in seen.items():
        ids_TLK[:, i] = ids[batch.tokens.source_M]
    return [RoutedExperts(ids=part.numpy().astype(np.uint8), every=1) for part in ids_TLK.split(LENGTHS)]


def mismatch(module: Any, batch: MicroBatch, version: int = VERSION) -> float | None:
    with torch.no_grad():
        module(batch.tokens)
    sums = MetricSums(means=[ROUTING], maxima=[], device=CPU)
    module.routing.compare(batch, version, sums)
    return sums.reduce(lambda values, _: values)[0].get(ROUTING)


@pytest.mark.parametrize("kind", KINDS)
def test_the_share_of_tokens_and_layers_whose_experts_differ(kind: str, folders: dict[str, Path]) -> None:
    module, own = policy(folders[kind], "compare"), own_choices(folders[kind])
    assert mismatch(module, batch_of([*own])) == 0
    assert mismatch(module, batch_of([*own]), VERSION + 1) is None  # tokens of another policy
    assert mismatch(module, batch_of([None, None, None])) is None
    swapped = [RoutedExperts(ids=e.ids[:, :, ::-1].copy(), every=1) for e in own]
    assert mismatch(module, batch_of([*swapped])) == 0  # their order does not matter

    other = own[1].ids.copy()
    other[4, LAYERS[kind][-1]] = [e for e in range(4) if e not in own[1].ids[4, LAYERS[kind][-1]]]
    changed = batch_of([own[0], RoutedExperts(ids=other, every=1), own[2]])
    counted = 5 * 1 + 9 * 2 + 3 * 3  # tokens, each for the completions that it represents
    assert mismatch(module, changed) == pytest.approx(2 / (counted * len(LAYERS[kind])))

    sampled = [RoutedExperts(ids=e.ids[::4], every=4) for e in (own[0], RoutedExperts(ids=other, every=1), own[2])]
    assert mismatch(module, batch_of([*sampled])) == pytest.approx(2 / ((2 * 1 + 3 * 2 + 1 * 3) * len(LAYERS[kind])))


def results(module: Any, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
    logprob_T, _ = module(batch.tokens)
    (logprob_T * torch.linspace(-1, 1, len(logprob_T))).sum().backward()
    return logprob_T.detach(), {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_replaying_the_routers_own_choices_changes_nothing(kind: str, folders: dict[str, Path]) -> None:
    own = own_choices(folders[kind])
    plain, gradients = results(policy(folders[kind], "ignore"), batch_of([None] * 3))
    replayed, same = results(policy(folders[kind], "replay"), batch_of([*own]))
    torch.testing.assert_close(replayed, plain, rtol=1e-5, atol=1e-5)
    assert same.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(same[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_other_experts_are_used_and_weighted_by_the_learners_own_router(kind: str, folders: dict[str, Path]) -> None:
    """The gradient of the router is that of the formula: a step along it changes the result as much as it predicts."""
    rng = np.random.default_rng(1)
    layers = len(policy(folders[kind], "ignore").hf.model.layers)
    chosen = [
        RoutedExperts(
            ids=np.array([[rng.permutation(4)[:2] for _ in range(layers)] for _ in range(n)], dtype=np.uint8), every=1
        )
        for n in LENGTHS
    ]
    module, batch, seen = in_float64(policy(folders[kind], "replay")), batch_of([*chosen]), {}
    block = module.hf.model.layers[-1].mlp
    block.experts.register_forward_pre_hook(lambda _, inputs: seen.update(ids=inputs[1]))
    _, gradients = results(module, batch)
    expected = np.concatenate([e.ids[:, -1] for e in chosen])
    assert np.array_equal(seen["ids"][batch.tokens.source_M].numpy(), expected)

    name = next(n for n in gradients if n.endswith(f"layers.{layers - 1}.mlp.gate.weight"))
    gradient, weight = gradients[name], dict(module.named_parameters())[name]
    weights_T = torch.linspace(-1, 1, sum(LENGTHS))
    values = []
    for step in (1e-3, -1e-3):
        with torch.no_grad():
            weight.add_(gradient, alpha=step)
            values.append(float((module(batch.tokens)[0] * weights_T).sum()))
            weight.add_(gradient, alpha=-step)
    assert (values[0] - values[1]) / 2e-3 == pytest.approx(float(gradient.square().sum()), rel=2e-2)
    assert mismatch(module, batch) > 0.1  # the routers' own choices are compared, not the replayed ones


def test_recomputed_activations_replay_too(folders: dict[str, Path]) -> None:
    chosen = [
        RoutedExperts(ids=np.tile(np.array([[[3, 1], [0, 2]]], dtype=np.uint8), (n, 1, 1)), every=1) for n in LENGTHS
    ]
    folder = folders["qwen3_moe"]
    plain = results(policy(folder, "replay"), batch_of([*chosen]))
    recomputed = results(policy(folder, "replay", model__activation_checkpointing=True), batch_of([*chosen]))
    torch.testing.assert_close(recomputed, plain)


def test_completions_that_share_a_prompt_replay_the_first_ones_choice_in_its_last_row(folders: dict[str, Path]) -> None:
    chosen = [RoutedExperts(ids=np.full((n, 2, 2), [s, 3], dtype=np.uint8), every=1) for s, n in enumerate(LENGTHS)]
    module, batch, seen = policy(folders["qwen3_moe"], "replay"), batch_of([*chosen], groups=[0, 0, 0]), {}
    module.hf.model.layers[0].mlp.experts.register_forward_pre_hook(lambda _, inputs: seen.update(ids=inputs[1]))
    with torch.no_grad():
        module(batch.tokens)
    last = 5  # of a prompt of six tokens
    assert seen["ids"][last].tolist() == [0, 3]
    assert seen["ids"][last + 1].tolist() == [0, 3]
    assert seen["ids"][-2].tolist() == [2, 3]  # the last row predicts nothing


def test_a_stand_in_without_sequences_passes_unchanged(folders: dict[str, Path]) -> None:
    module = policy(folders["qwen3_moe"], "replay")
    stand_in = make_micro_batch([], CPU)
    assert mismatch(module, stand_in) is None


def test_a_dense_model_and_an_unknown_formula_are_refused() -> None:
    with pytest.raises(ConfigError, match="qwen2 has no router"):
        Routing(random_model(1), replay=False)

    class Squares(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 64))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            logits = x @ self.weight.T
            values, experts = logits.square().topk(2)
            return logits, values, experts

    hf = random_experts("qwen3_moe", 2)
    hf.model.layers[1].mlp.gate = Squares()
    Routing(hf, replay=False)
    with pytest.raises(ConfigError, match=r"layers.1.mlp.gate \(Squares\).*set it to compare"):
        Routing(hf, replay=True)


def test_a_completion_whose_experts_were_not_all_recorded_is_refused() -> None:
    sequences = [
        Sequence(
            prompt=np.zeros(1, dtype=np.int32),
            completion=np.zeros(3, dtype=np.int32),
            temperature=1.0,
            behavior_logprobs=np.zeros(3, dtype=np.float32),
            versions=np.zeros(3, dtype=np.int64),
            advantage=0.0,
            trained=True,
            experts=e,
        )
        for e in (None, RoutedExperts(ids=np.zeros((1, 2, 2), dtype=np.uint8), every=16))
    ]
    for sequence in sequences:
        with pytest.raises(IntegrityError, match=r"step 7: algorithm\.routing = replay"):
            check_replayable([sequence], 7)
