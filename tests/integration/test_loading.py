"""Several ranks load one model: rank 0 alone reads its weights, once, and all ranks hold them to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.learner_support import io, make_model, make_rank, remake, run_ranks

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SIZES = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 6, "initializer_range": 0.02}
NOISE = 300_000
"""Bytes of configuration, tokenizer and Python code that a rank reads on the way."""


def load(rank: int, world_size: int, port: int, model: str, cases: list[dict[str, Any]]) -> Any:
    """For each case: bytes read while the model is loaded, and whether every tensor is that of the file."""
    import torch
    from safetensors.torch import load_file

    from learner.engine import gathered

    stored = load_file(Path(model) / "model.safetensors")
    learner = make_rank(rank, world_size, port, model, cases[0])
    answers = []
    for changes in cases:
        remake(learner, model, changes)  # imports what this case needs
        before = io("rchar")
        remake(learner, model, changes)
        read = io("rchar") - before
        dtype = getattr(torch, changes["model__dtype"])
        policy = {n: torch.equal(t.cpu(), stored[n].to(dtype)) for n, t in learner.named_weights()}
        copied = {}
        for name, parameter in learner._reference.parameters() if learner._reference else ():
            with gathered([parameter], changes["learner__zero_stage"]):
                copied[name.removeprefix("hf.")] = parameter.data.clone()
        reference = {n: torch.equal(t.cpu(), stored[n].to(dtype)) for n, t in copied.items()}
        answers.append({"read": read, "policy": policy, "reference": reference})
    learner.close()
    return answers


CASES = [
    {"learner__zero_stage": stage, "model__dtype": dtype, "algorithm__kl_coefficient": kl}
    for stage in (0, 1, 2, 3)
    for dtype in ("float32", "bfloat16")
    for kl in (0.0, 0.1)
    if (stage, dtype) != (0, "bfloat16")
]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_one_rank_reads_the_weights_once(tmp_path: Path, ranks: int) -> None:
    model = make_model(tmp_path / "model", **SIZES)
    size = (model / "model.safetensors").stat().st_size
    assert size > 10 * NOISE
    answers = run_ranks(load, ranks, str(model), CASES)
    for rank, cases in enumerate(answers):
        for case, found in zip(CASES, cases, strict=True):
            assert all(found["policy"].values()), (rank, case, found["policy"])
            assert all(found["reference"].values()), (rank, case, found["reference"])
            assert found["policy"].keys() == found["reference"].keys() or not case["algorithm__kl_coefficient"]
            least, most = (size, size + NOISE) if rank == 0 else (0, NOISE)
            assert least <= found["read"] <= most, (rank, case, found["read"], size)


def refused(rank: int, world_size: int, port: int, model: str) -> str:
    from r1ray.errors import ConfigError

    with pytest.raises(ConfigError) as caught:
        make_rank(rank, world_size, port, model, {})
    return str(caught.value)


def test_every_rank_says_why_a_folder_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = make_model(tmp_path / "model")
    stored = load_file(model / "model.safetensors")
    del stored["model.norm.weight"]
    save_file(stored, model / "model.safetensors", metadata={"format": "pt"})
    first, second = run_ranks(refused, 2, str(model))
    assert "lacks 1 tensors of a Qwen2ForCausalLM: model.norm.weight" in first
    assert second == first
