"""Attention over packed sequences against the formula, written out for each sequence alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from learner.attention import make_layout, packed_attention
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


def test_a_window_that_no_sequence_reaches_is_none_and_a_shorter_one_is_refused() -> None:
    made = tensors(2, 2, 8, 8)
    layout = make_layout(LENGTHS, torch.device("cpu"))
    free, _ = packed_attention(None, *made, None, layout=layout)
    wide, _ = packed_attention(None, *made, None, layout=layout, sliding_window=9)
    assert torch.equal(free, wide)
    with pytest.raises(ConfigError, match=r"sliding window of 8 < 9 tokens"):
        packed_attention(None, *made, None, layout=layout, sliding_window=8)
