"""Ranks that compute a packed row together train like one rank that computes it alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r1ray.types import ScoredGroup
from tests.integration.learner_support import (
    VOCABULARY,
    load_policy,
    make_config,
    make_groups,
    make_model,
    make_rank,
    remake,
    run_ranks,
    train_step,
    write_tokenizer,
)
from tests.unit.data_helpers import write_jsonl

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SMALL = {"hidden_size": 48, "intermediate_size": 40, "num_hidden_layers": 2, "vocab_size": VOCABULARY}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "fewer key-value heads than ranks": ("Qwen2", {"num_attention_heads": 4, "num_key_value_heads": 1}),
    "key-value heads that ranks do not divide": ("Llama", {"num_attention_heads": 12, "num_key_value_heads": 3}),
    "normalised heads": ("Qwen3", {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8}),
    "latent attention": (
        "DeepseekV3",
        {
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 8,
            "v_head_dim": 6,
            "first_k_dense_replace": 2,
        },
    ),
}
GROUPS = [(7, [12, 3, 1, 20]), (1, [5, 5]), (15, [9])]
"""Tokens of the prompts and of their completions: 109 rows apart and 78 with shared prompts, both no multiple of 4."""


def make_models(folder: Path) -> None:
    import torch
    import transformers

    for name, (kind, changes) in MODELS.items():
        torch.manual_seed(3)
        settings = getattr(transformers, f"{kind}Config")(**SMALL, **changes, initializer_range=0.2)
        getattr(transformers, f"{kind}ForCausalLM")(settings).save_pretrained(folder / name)
        write_tokenizer(folder / name, VOCABULARY)


def float64(rank: int, world_size: int, port: int, folder: str) -> dict[str, float]:
    """The largest difference to n = 1, relative to each tensor's largest value, by case; and how much was compared."""
    import torch

    from learner.group import init_process_group
    from learner.sequence import ALONE, join_group

    torch.set_num_threads(1)
    init_process_group(rank=rank, world_size=world_size, address="127.0.0.1", port=port, timeout_s=60)
    sizes = [n for n in (2, 4) if n <= world_size]
    joined = {n: join_group(rank, world_size, n, 60.0) for n in sizes}
    worst = {}
    for name in MODELS:
        for shared in (False, True):
            alone = gradient(Path(folder) / name, shared, ALONE, checkpointing=False)
            for n in sizes:
                for checkpointing in (False, True) if shared else (False,):
                    found = gradient(Path(folder) / name, shared, joined[n], checkpointing)
                    key = f"{name}, {n} ranks, shared={shared}, checkpointing={checkpointing}"
                    assert found.keys() == alone.keys()
                    worst[key] = max(
                        float((found[x] - alone[x]).abs().max() / alone[x].abs().max().clamp(min=1e-3)) for x in alone
                    )
    torch.distributed.destroy_process_group()
    return worst


def gradient(folder: Path, shared: bool, group: Any, checkpointing: bool) -> dict[str, Any]:
    """Log-probabilities and gradients of a loss that couples the tokens of a sequence, summed over the group."""
    import torch

    from learner.batch import pack_tokens
    from tests.integration.test_shared_prompts import in_float64

    config = make_config(folder, model__activation_checkpointing=checkpointing)
    policy = in_float64(load_policy(config.model, folder))
    rng = np.random.default_rng(4)
    draw = lambda n: rng.integers(0, VOCABULARY, n, dtype=np.int32)  # noqa: E731
    prompts = [draw(prompt) for prompt, _ in GROUPS]
    order = [(g, draw(n)) for g, (_, lengths) in enumerate(GROUPS) for n in lengths]
    tokens = pack_tokens(
        [prompts[g] for g, _ in order],
        [c for _, c in order],
        [0.8] * len(order),
        torch.device("cpu"),
        groups=[g for g, _ in order] if shared else None,
        shared_by=group,
    )
    logprob_T, entropy_T = policy(tokens)
    of_sequence_S = logprob_T.new_zeros(len(order)).index_add(0, tokens.segment_T, logprob_T)
    weights = torch.randn(len(logprob_T), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    (of_sequence_S.square().sum() + (weights * entropy_T).sum()).backward()
    found = {"logprobs": logprob_T.detach()}
    for parameter_name, parameter in policy.named_parameters():
        if group.size > 1:
            torch.distributed.all_reduce(parameter.grad, group=group.handle)
        found[parameter_name] = parameter.grad
    return found


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_models(folder)
    return folder


def test_gradients_in_float64_are_those_of_one_rank(models: Path) -> None:
    """Four ranks: one group of four, and two groups of two that compute the same."""
    for worst in run_ranks(float64, 4, str(models)):
        assert len(worst) == len(MODELS) * 2 * 3
        assert {key: value for key, value in worst.items() if not value < 1e-11} == {}


def supervised(rank: int, world_size: int, port: int, model: str, rows: str) -> list[Any]:
    """Metrics of two steps and an evaluation: fine-tuning, then a reward model in the same process group."""
    from learner.preference.rank import RewardModelRank
    from learner.sft.rank import SftRank
    from r1ray.config.schema import SourceConfig

    config = make_config(Path(model), learner__ranks=world_size, learner__sequence_parallel=world_size)
    config.data.train, config.data.template = [SourceConfig(name="rows", kind="jsonl", path=rows)], "none"
    config.learner.micro_batch_tokens = 128 // world_size
    for settings in (config.sft, config.reward_model):
        settings.batch_size, settings.held_out = 5, 0.4
    fine_tuning = SftRank(config=config, rank=rank)
    fine_tuning.setup("127.0.0.1", port)
    judging = RewardModelRank(config=config, rank=rank)
    answers: list[Any] = []
    for made in (fine_tuning, judging):
        if made is judging:
            made.build(fine_tuning._engine.device)
        answers += [made.train_step() for _ in range(2)] + made.evaluate()
    judging.close()
    return answers


def test_fine_tuning_and_reward_models_are_those_of_one_rank(tmp_path: Path) -> None:
    """Held-out figures, too, count each row once."""
    model = make_model(tmp_path / "model")
    lines = [
        {
            "prompt": f"Q{i}",
            "response": "AB"[i % 2] * (i % 9 + 1),
            "chosen": "C" * (i % 7 + 1),
            "rejected": "D" * (i % 5 + 1),
        }
        for i in range(24)
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", lines)
    (alone,), together = (run_ranks(supervised, n, str(model), path) for n in (1, 2))
    assert len(alone) == 6
    for answer in together:
        for expected, found in zip(alone, answer, strict=True):
            timed = {"learner/step_s", "learner/tokens_per_s"}
            assert flat(found).keys() == flat(expected).keys()
            for name, value in flat(expected).items():
                if name not in timed:
                    assert flat(found)[name] == (
                        value if isinstance(value, str) else pytest.approx(value, rel=1e-4, abs=1e-6)
                    ), name


def flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    parts = [flat(v, f"{prefix}{k}.") if isinstance(v, dict) else {f"{prefix}{k}": v} for k, v in row.items()]
    return {key: value for part in parts for key, value in part.items()}


STEPS = 2
TOKENS = 80  # of the longest row; the groups' sequences have at most 31


def groups_of(step: int) -> list[ScoredGroup]:
    """The completions of the second group have earned the same, so their advantages are zero."""
    groups = make_groups(step, seed=5)
    scores = tuple(dataclasses.replace(score, reward=0.5) for score in groups[1].scores)
    groups[1] = dataclasses.replace(groups[1], scores=scores)
    return groups


def engine_steps(rank: int, world_size: int, port: int, model: str, cases: list[dict[str, Any]]) -> list[Any]:
    """Metrics and weights after two training steps, for each case."""
    answers, learner = [], None
    for case in cases:
        n = case.get("learner__sequence_parallel", 1)
        changes = {
            "learner__micro_batch_tokens": TOKENS // n,
            "algorithm__kl_coefficient": 0.1,
            "algorithm__loss": "gspo",
            "algorithm__loss_aggregation": "sequence",
            "learner__minibatches": 2,
            **case,
        }
        if learner is None:
            learner = make_rank(rank, world_size, port, model, changes)
        else:
            remake(learner, model, changes)
        metrics = [train_step(learner, step, groups_of(step)) for step in range(STEPS)]
        weights = {name: tensor.double().flatten()[:50].tolist() for name, tensor in learner.named_weights()}
        answers.append({"metrics": metrics, "weights": weights})
    assert learner is not None
    learner.close()
    return answers


LEAVES_OUT = {"algorithm__kl_coefficient": 0.0, "learner__minibatches": 1}
"""Completions whose advantage is zero have no gradient then, so the plan leaves most of them out."""


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    model = make_model(tmp_path_factory.mktemp("steps") / "model")
    return model, run_ranks(engine_steps, 1, str(model), [{}, LEAVES_OUT])[0]


@pytest.mark.parametrize(
    ("ranks", "sizes_and_stages"), [(2, [(2, 0), (2, 1), (2, 2), (2, 3)]), (4, [(2, 2), (4, 1), (4, 3)])]
)
def test_steps_under_every_zero_stage_are_those_of_one_rank(
    one_rank: tuple[Path, list[dict[str, Any]]], ranks: int, sizes_and_stages: list[tuple[int, int]]
) -> None:
    """Two key-value heads, so four ranks are more. Sums, counts and maxima of the metrics count each token once."""
    model, (plain, leaves_out) = one_rank
    cases = [{"learner__zero_stage": stage, "learner__sequence_parallel": n} for n, stage in sizes_and_stages]
    cases.append({**cases[0], **LEAVES_OUT})
    answers = run_ranks(engine_steps, ranks, str(model), cases)
    assert leaves_out["metrics"][0]["batch/left_out"] > plain["metrics"][0]["batch/left_out"] == 0
    for answer in answers:
        assert len(answer) == len(cases)
        for case, found in zip(cases, answer, strict=True):
            wanted = leaves_out if case.keys() >= LEAVES_OUT.keys() else plain
            for step in range(STEPS):
                got, expected = found["metrics"][step], wanted["metrics"][step]
                assert got.keys() == expected.keys()
                packing = set() if case["learner__sequence_parallel"] == ranks else {"batch/packed_tokens"}
                for name in expected.keys() - {"learner/step_s"} - packing:
                    assert got[name] == pytest.approx(expected[name], rel=2e-4, abs=2e-6), (case, step, name)
            for name, values in wanted["weights"].items():
                np.testing.assert_allclose(found["weights"][name], values, rtol=0, atol=3e-5, err_msg=f"{case} {name}")
    assert plain["metrics"][0]["train/grad_norm"] > 1e-3
