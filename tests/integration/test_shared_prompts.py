"""Prompts computed once for a group, and silent completions left out, change nothing: a real model in float64."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.groups import make_manifest
from learner.assemble import batch_advantages, denominators, make_sequence, silent_completions
from learner.batch import make_micro_batch, pack_tokens
from learner.metrics import MetricSums
from learner.model import PolicyModel
from learner.objective import MAXIMA, MEANS, PolicyObjective
from learner.packing import SequenceRef, plan_step
from learner.plugins import load_advantage
from r1ray.types import ScoredGroup
from tests.integration.learner_support import (
    VOCABULARY,
    load_policy,
    make_config,
    make_groups,
    make_model,
    write_tokenizer,
)

pytestmark = pytest.mark.integration

CPU = torch.device("cpu")
GROUPS = [(7, [12, 3, 1, 20]), (1, [5, 5]), (15, [9]), (30, [2, 8, 31])]  # tokens of the prompt and of each completion
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 61}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "grouped-query attention": ("Llama", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "normalised heads": ("Qwen3", {"num_key_value_heads": 2, "head_dim": 8}),
    "mixture of experts": (
        "Qwen3Moe",
        {
            "num_key_value_heads": 2,
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
        },
    ),
    "latent attention": (
        "DeepseekV3",
        {
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "moe_intermediate_size": 16,
        },
    ),
}


def in_float64(policy: PolicyModel) -> PolicyModel:
    """All of it: transformers normalises in float32 and multiplies experts by a kernel without float64.

    Norms that `learner.recompute` has replaced compute in float64 by themselves.
    """

    def normalise(norm: Any, hidden: Tensor) -> Tensor:
        scale = torch.rsqrt(hidden.square().mean(-1, keepdim=True) + norm.variance_epsilon)
        normalised: Tensor = norm.weight * (hidden * scale)
        return normalised

    policy.double().hf.set_experts_implementation("eager")
    for module in policy.modules():
        if type(module).__name__.endswith("RMSNorm") and "forward" not in vars(module):
            module.forward = partial(normalise, module)
    return policy


@pytest.mark.parametrize("name", MODELS)
def test_values_and_gradients_are_those_of_a_prompt_for_each_completion(tmp_path: Path, name: str) -> None:
    """Equal to rounding of float64, in which rows of a matrix product may be summed in another order."""
    import transformers

    kind, changes = MODELS[name]
    torch.manual_seed(3)
    settings = getattr(transformers, f"{kind}Config")(**SMALL, **changes, initializer_range=0.2)
    getattr(transformers, f"{kind}ForCausalLM")(settings).save_pretrained(tmp_path)
    write_tokenizer(tmp_path, VOCABULARY)
    policy = in_float64(load_policy(make_config(tmp_path).model, tmp_path))
    rng = np.random.default_rng(4)
    draw = lambda n: rng.integers(0, VOCABULARY, n, dtype=np.int32)  # noqa: E731
    prompts = {g: draw(prompt) for g, (prompt, _) in enumerate(GROUPS)}
    order = [(g, draw(n)) for g, (_, lengths) in enumerate(GROUPS) for n in lengths]

    def run(groups: list[int] | None) -> tuple[int, Tensor, dict[str, Tensor]]:
        tokens = pack_tokens(
            [prompts[g] for g, _ in order], [c for _, c in order], [0.8] * len(order), CPU, groups=groups
        )
        policy.zero_grad()
        logprob_T, entropy_T = policy(tokens)
        weights = torch.randn(2, len(logprob_T), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        (weights[0] * logprob_T + weights[1] * entropy_T).sum().backward()
        gradients = {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}
        return len(tokens.input_ids_R), logprob_T.detach(), gradients

    apart, shared = run(None), run([g for g, _ in order])
    assert (apart[0], shared[0]) == (4 * 7 + 2 + 15 + 90 + 96, 7 + 1 + 15 + 30 + 96)
    assert apart[1].dtype == torch.float64
    close = 1e-12 if "Moe" not in kind and "Deepseek" not in kind else 1e-6  # experts are weighted in float32
    torch.testing.assert_close(shared[1], apart[1], rtol=close, atol=close)
    assert shared[2].keys() == apart[2].keys()
    for parameter, expected in apart[2].items():
        scale = float(expected.abs().max())
        torch.testing.assert_close(shared[2][parameter], expected, rtol=0.0, atol=close * max(scale, 1e-3))


LOSSES: dict[str, dict[str, Any]] = {
    "grpo": {},
    "dr_grpo": {"algorithm__advantage": "mean_only", "algorithm__loss_aggregation": "constant"},
    "gspo": {"algorithm__loss_aggregation": "sequence"},
    "cispo": {"algorithm__advantage": "leave_one_out"},
    "dapo": {"algorithm__importance": "decoupled", "algorithm__importance_correction": "truncated"},
}


def with_silent_groups(groups: list[ScoredGroup]) -> list[ScoredGroup]:
    """Group 1 earned 0.1 for each completion; a mean of such numbers is not always 0.1."""
    import dataclasses

    silent = tuple(dataclasses.replace(score, reward=0.1) for score in groups[1].scores)
    return [dataclasses.replace(g, scores=silent) if i == 1 else g for i, g in enumerate(groups)]


@pytest.mark.parametrize("loss", LOSSES)
def test_leaving_out_silent_completions_keeps_the_gradient_and_what_metrics_count(tmp_path: Path, loss: str) -> None:
    config = make_config(make_model(tmp_path / "model"), algorithm__loss=loss, **LOSSES[loss])
    policy = in_float64(load_policy(config.model, tmp_path / "model"))
    groups = with_silent_groups(make_groups(0, size=5))
    manifest = make_manifest(0, groups)
    advantages = batch_advantages(manifest, load_advantage(config.algorithm.advantage), config)
    silent = silent_completions(manifest, advantages, config)
    counted = denominators(manifest, range(len(groups)), config)

    def refs_of(left_out: bool) -> list[SequenceRef]:
        """In the order of the manifest, so that sums have the same order with and without the silent ones."""
        chosen = silent if left_out else ()
        (plan,) = plan_step(manifest, minibatches=1, ranks=1, micro_batch_tokens=1000, silent=chosen)
        (refs,) = plan.micro_batches[0]
        return sorted(refs, key=lambda ref: (ref.group, ref.completion))

    def run(left_out: bool) -> tuple[int, dict[str, Tensor], dict[str, float]]:
        refs = refs_of(left_out)
        batch = make_micro_batch(
            [
                make_sequence(
                    ref,
                    groups[ref.group],
                    float(advantages[ref.group][ref.completion]),
                    trained=True,
                )
                for ref in refs
            ],
            CPU,
        )
        sums = MetricSums(means=MEANS, maxima=MAXIMA, device=CPU)
        policy.zero_grad()
        PolicyObjective(config).loss(policy, batch, counted, sums, unchanged_version=0).backward()
        _, counts = sums.reduce(lambda values, op: values)
        return len(refs), {name: p.grad.clone() for name, p in policy.named_parameters()}, counts

    everything, signal = run(False), run(True)
    assert (everything[0], signal[0]) == (20, 20 - 4)
    for name, expected in everything[1].items():
        torch.testing.assert_close(signal[1][name], expected, rtol=1e-12, atol=1e-15)
    assert max(float(g.norm()) for g in everything[1].values()) > 1e-3
    # The sample's tokens count for its own completion and for the four that it stands for.
    lengths = manifest.groups[1].completion_tokens
    (sample,) = (ref.completion for ref in refs_of(True) if ref.group == 1)
    difference = signal[2]["train/entropy"] - everything[2]["train/entropy"]
    assert difference == 5 * lengths[sample] - sum(lengths)
