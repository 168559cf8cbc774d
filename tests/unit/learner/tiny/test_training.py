"""The optimiser, the schedule, the record and the check of the embedded base model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from learner.tiny.check import _in_totals
from learner.tiny.muon import Muon, orthogonal
from learner.tiny.pretrain import Schedule
from learner.tiny.recipe import RECORD, is_current, recipe_hash
from r1ray.errors import IntegrityError


@pytest.mark.parametrize("shape", [(24, 24), (16, 48), (48, 16)])
def test_orthogonal_keeps_the_directions_and_evens_the_lengths(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=generator)
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    lengths = (u.T @ orthogonal(matrix) @ vt.T).diagonal()
    assert lengths.min() > 0.5
    assert lengths.max() < 1.3
    assert torch.allclose(u @ lengths.diag() @ vt, orthogonal(matrix), atol=1e-4)


@pytest.mark.parametrize("shape", [(32, 32), (32, 96), (96, 32)])
def test_muon_does_what_torch_does_in_bfloat16(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = (
        Muon([ours], lr=0.1),
        torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        gradient = torch.randn(shape, generator=generator)
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    assert (ours - start).norm() > 0.1
    assert (ours - theirs).norm() < 0.03 * (ours - start).norm()


def test_the_rate_warms_up_stays_and_falls_by_steps() -> None:
    schedule = Schedule(steps=100, lr=1.0, warmup_steps=10, constant_share=0.5, final_share=0.02)
    assert schedule.rate(0) == pytest.approx(0.1)
    assert schedule.rate(9) == schedule.rate(50) == 1.0
    assert schedule.rate(75) == pytest.approx(0.51)
    assert schedule.rate(100) == pytest.approx(0.02)


def test_only_digits_behind_an_equals_sign_or_in_the_answer_are_totals() -> None:
    words = [
        "<think>",
        "7",
        "A",
        "+",
        "5",
        "=",
        "1",
        "2",
        "B",
        "-",
        "3",
        "=",
        "9",
        "</think>",
        "<answer>",
        "9",
        "</answer>",
    ]
    assert [i for i, flag in enumerate(_in_totals(words)) if flag] == [6, 7, 12, 15]


def test_a_build_is_current_only_with_this_recipe(tmp_path: Path) -> None:
    assert not is_current(tmp_path / "absent")
    assert not is_current(tmp_path)
    (tmp_path / RECORD).write_text('{"recipe": "another"}')
    assert not is_current(tmp_path)
    (tmp_path / RECORD).write_text(f'{{"recipe": "{recipe_hash()}"}}')
    assert is_current(tmp_path)
    (tmp_path / RECORD).write_text("cut o")
    with pytest.raises(IntegrityError, match=RECORD):
        is_current(tmp_path)
