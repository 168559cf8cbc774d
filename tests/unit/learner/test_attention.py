"""Attention over packed sequences against the formula, written out for each sequence alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from learner.attention import IMPLEMENTATION, make_layout, make_shared_layout, packed_attention, why_not_shared
from r1ray.errors import ConfigError

LENGTHS = [5, 1, 9, 4]


def tensors(heads: int, groups: int, size: int, value_size: int) -> list[Tensor]:
    """query [1, H, N, D], key [1, K, N, D], value [1, K, N, E]"""
    torch.manual_seed(0)
    n = sum(LENGTHS)
    sizes = ((heads, size), (groups, size), (groups, value_size))
    return [torch.randn(1, h, n, d, dtype=torch.float64, requires_grad=True) for h, d in sizes]


def plain(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """softmax(q k scale) v over what is not later, sequence by sequence; [1, N, H, E]."""
    repeats = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(repeats, dim=1) for x in (key, value))
    outputs, first = [], 0
    for length in LENGTHS:
        q, k, v = (x[0, :, first : first + length] for x in (query, key, value))
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = (q @ k.transpose(1, 2) * scale).masked_fill(later, -torch.inf).softmax(-1)
        outputs.append((weights @ v).transpose(0, 1))
        first += length
    return torch.cat(outputs)[None]


@pytest.mark.parametrize(
    ("heads", "groups", "size", "value_size"),
    [(4, 4, 16, 16), (4, 2, 16, 16), (4, 4, 24, 16), (4, 2, 24, 16), (2, 2, 16, 24)],
)
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_packed_is_each_sequence_alone_whatever_the_head_sizes(
    heads: int, groups: int, size: int, value_size: int, scaling: float | None
) -> None:
    made = tensors(heads, groups, size, value_size)
    layout = make_layout(LENGTHS, torch.device("cpu"))
    packed, _ = packed_attention(None, *made, None, layout=layout, scaling=scaling)
    expected = plain(*made, scale=size**-0.5 if scaling is None else scaling)
    assert packed.shape == (1, sum(LENGTHS), heads, value_size)
    torch.testing.assert_close(packed, expected)
    weight = torch.randn_like(expected)
    got, wanted = (torch.autograd.grad((out * weight).sum(), made) for out in (packed, expected))
    torch.testing.assert_close(got, wanted)


def test_half_precision_rounds_inputs_and_results_alone() -> None:
    made = [x.detach().bfloat16().requires_grad_() for x in tensors(4, 2, 16, 16)]
    exact = [x.detach().double().requires_grad_() for x in made]
    packed, _ = packed_attention(None, *made, None, layout=make_layout(LENGTHS, torch.device("cpu")))
    expected = plain(*exact, scale=16**-0.5)
    torch.testing.assert_close(packed, expected.bfloat16(), rtol=2**-7, atol=1e-6)
    weight = torch.randn_like(packed)
    got, wanted = (torch.autograd.grad((out * weight).sum(), x) for out, x in ((packed, made), (expected, exact)))
    for gradient, right in zip(got, wanted, strict=True):
        assert gradient.dtype == torch.bfloat16
        assert (gradient - right).abs().max() < 2**-7 * right.abs().max()


def test_recomputed_attention_has_the_same_gradient() -> None:
    made, layout = tensors(4, 2, 16, 16), make_layout(LENGTHS, torch.device("cpu"))

    def attend(*inputs: Tensor) -> Tensor:
        return packed_attention(None, *inputs, None, layout=layout)[0].square().sum()

    recomputed: Tensor = checkpoint(attend, *made, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(recomputed, made), torch.autograd.grad(attend(*made), made))


def test_a_window_that_no_sequence_reaches_is_none_and_a_shorter_one_is_refused() -> None:
    made = tensors(2, 2, 8, 8)
    layout = make_layout(LENGTHS, torch.device("cpu"))
    free, _ = packed_attention(None, *made, None, layout=layout)
    wide, _ = packed_attention(None, *made, None, layout=layout, sliding_window=9)
    assert torch.equal(free, wide)
    with pytest.raises(ConfigError, match=r"sliding window of 8 < 9 tokens"):
        packed_attention(None, *made, None, layout=layout, sliding_window=8)


SHARED_ROWS = [[0, 1, 2, 3], [0, 1, 4], [5, 6, 7, 8, 9, 10, 11], [5, 6, 7, 12, 13, 14, 15, 16], [0, 1, 17]]
"""Two prompts, rows 0-1 and 5-7, one with three completions and one with two: 18 rows for 25 tokens."""


@pytest.mark.parametrize(("heads", "groups", "size", "value_size"), [(4, 4, 16, 16), (4, 2, 24, 16)])
def test_shared_rows_give_what_a_copy_for_each_sequence_gives(
    heads: int, groups: int, size: int, value_size: int
) -> None:
    """Values and gradients: of a shared row the gradient is the sum over its copies."""
    torch.manual_seed(1)
    sizes = ((heads, size), (groups, size), (groups, value_size))
    made = [torch.randn(1, h, 18, d, dtype=torch.float64, requires_grad=True) for h, d in sizes]
    rows_S = [np.array(rows) for rows in SHARED_ROWS]
    copied = torch.from_numpy(np.concatenate(rows_S))
    cpu = torch.device("cpu")
    shared, _ = packed_attention(None, *made, None, layout=make_shared_layout(rows_S, cpu))
    apart, _ = packed_attention(
        None, *(x[:, :, copied] for x in made), None, layout=make_layout([len(rows) for rows in rows_S], cpu)
    )
    torch.testing.assert_close(shared[:, copied], apart)
    weight = torch.randn_like(shared)
    first = torch.tensor([copied.tolist().index(row) for row in range(18)])  # one copy of each row counts
    got, wanted = (torch.autograd.grad((out * weight).sum(), made) for out in (shared, apart[:, first]))
    torch.testing.assert_close(got, wanted)


def test_only_attention_that_gathers_rows_shares_prompts() -> None:
    assert why_not_shared(IMPLEMENTATION, cuda=False) is None
    assert "variable-length kernel of CUDA" in (why_not_shared(IMPLEMENTATION, cuda=True) or "")
    assert "flash_attention_2" in (why_not_shared("flash_attention_2", cuda=True) or "")
    layout = make_shared_layout([np.array([0, 1]), np.array([0, 2])], torch.device("cpu"))
    with pytest.raises(AssertionError, match="cannot share prompts"):
        layout.kwargs("flash_attention_2")
