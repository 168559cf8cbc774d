"""Causal attention over packed sequences: many sequences in one row of N tokens, no padding outside and no N x N mask.

    CPU            gather to right-padded rows of similar length, torch's causal kernel in float32, scatter back
    CUDA, half     torch.nn.attention.varlen, which takes the packed row as it is (or flash_attention_2 where installed)

Right padding is exact: a causal query never sees the padded keys, which come after it, and padded queries are thrown
away.

Shared prompts: the packed row may hold a prompt once for several completions. Each sequence's rows, prompt and
completion, are then gathered from where they are, so that everything but attention itself is computed once for the
prompt. Only the gathering form does this; the variable-length kernels want the rows of a sequence side by side.

Sequence parallelism: a layout belongs to a group of ranks, each of which has a slice of the rows. Attention exchanges
them for heads and back (`learner.sequence`), so both forms above see all rows. Shapes: N packed tokens, S sequences,
H query heads, K key/value heads, D head size (E of values), B x L one padded block.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from learner.sequence import ALONE, SequenceGroup, attend_over_heads
from r1ray.errors import ConfigError

RowArray = npt.NDArray[np.int64]

IMPLEMENTATION = "r1ray_packed"
"""The name under which transformers finds `packed_attention`."""

SHORTEST_SHARE = 0.7
"""Sequences shorter than this share of the longest in their block begin a block of their own: bounds the padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedLayout:
    """Where the sequences of a packed row begin and end; made once, used by every layer.

    Example: lengths (3, 2) give boundaries (0, 3, 5), one block [[0, 1, 2], [3, 4, 4]] (the last index repeats as
    padding) and positions_N = (0, 1, 2, 3, 4): where row n is found in the flattened blocks.
    """

    boundaries: Tensor | None  # int32 [S + 1]: sequence s is rows boundaries[s] to boundaries[s + 1]; None: shared rows
    longest: int  # tokens of the longest sequence
    blocks: tuple[Tensor, ...]  # int64 [B, L] each: rows of the packed tensor
    positions_N: Tensor  # int64 [N]: where each row is found in the flattened blocks
    group: SequenceGroup = ALONE  # the ranks that have the rows, a slice each

    def kwargs(self, implementation: str) -> dict[str, Any]:
        """Arguments of the model's forward for the attention that is in use."""
        if implementation == IMPLEMENTATION:
            return {"layout": self}
        assert self.boundaries is not None, f"{implementation} cannot share prompts"
        assert self.group.size == 1, f"{implementation} cannot exchange rows for heads"
        ends = {"cu_seq_lens_q": self.boundaries, "cu_seq_lens_k": self.boundaries}
        return {**ends, "max_length_q": self.longest, "max_length_k": self.longest}


def make_layout(lengths: list[int], device: torch.device, group: SequenceGroup = ALONE) -> PackedLayout:
    """The layout of sequences of these lengths (all positive), one after the other. `group` has the rows."""
    boundaries = np.concatenate([[0], np.cumsum(lengths)])
    rows_S = [np.arange(first, end) for first, end in itertools.pairwise(boundaries)]
    return _gathering(rows_S, torch.from_numpy(boundaries.astype(np.int32)).to(device), device, group)


def make_shared_layout(rows_S: list[RowArray], device: torch.device, group: SequenceGroup = ALONE) -> PackedLayout:
    """The layout of sequences that share rows: int64 [L] for each, where its tokens are in the packed row.

    Every row belongs to some sequence. Rows before a shared one must be shared by the same sequences, in the same
    order: prompts, not suffixes. Example: [0, 1, 2] and [0, 1, 3] have a prompt of two tokens and a completion of one
    each.
    """
    return _gathering(rows_S, None, device, group)


def _gathering(
    rows_S: list[RowArray], boundaries: Tensor | None, device: torch.device, group: SequenceGroup
) -> PackedLayout:
    lengths = [len(rows) for rows in rows_S]
    positions = np.empty(max(int(rows.max()) for rows in rows_S) + 1, dtype=np.int64)
    blocks, offset = [], 0
    for members in _similar(lengths):
        longest = lengths[members[0]]
        index = np.empty((len(members), longest), dtype=np.int64)
        for r, s in enumerate(members):
            index[r, : lengths[s]] = rows_S[s]
            index[r, lengths[s] :] = rows_S[s][-1]
            positions[rows_S[s]] = offset + r * longest + np.arange(lengths[s])
        blocks.append(torch.from_numpy(index).to(device))
        offset += index.size
    return PackedLayout(
        boundaries=boundaries,
        longest=max(lengths),
        blocks=tuple(blocks),
        positions_N=torch.from_numpy(positions).to(device),
        group=group,
    )


def _similar(lengths: list[int]) -> list[list[int]]:
    """Indices grouped so that the lengths within a group are alike, longest first."""
    groups: list[list[int]] = []
    for s in sorted(range(len(lengths)), key=lambda s: -lengths[s]):
        if not groups or lengths[s] < SHORTEST_SHARE * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(s)
    return groups


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: PackedLayout,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query [1, H, N, D], key [1, K, N, D], value [1, K, N, E] -> [1, N, H, E].

    With sequence parallelism, arguments and result have this rank's rows instead of N.

    The kernels want E = D, which multi-head latent attention does not have: the shorter ones are lengthened by zeros,
    which change neither a score nor a value. Without `scaling` scores are divided by the root of D.

    Raises ConfigError for attention that it cannot do exactly: windows shorter than a sequence, soft caps, sinks,
    dropout.
    """
    extra = [name for name in ("softcap", "s_aux", "position_bias") if unused.get(name) is not None]
    if sliding_window is not None and sliding_window < layout.longest:
        extra.append(f"sliding window of {sliding_window} < {layout.longest} tokens")
    if extra or dropout or attention_mask is not None:
        raise ConfigError(
            f"packed attention cannot do {extra or 'dropout or masks'}: set model.attention=flash_attention_2"
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    made = [x[0].transpose(0, 1) for x in (query, key, value)]
    attend = partial(_attend, layout=layout, scale=scale)
    out_NHE = attend(*made) if layout.group.size == 1 else attend_over_heads(layout.group, attend, *made)
    return out_NHE[None], None


def _attend(query_NHD: Tensor, key_NKD: Tensor, value_NKE: Tensor, *, layout: PackedLayout, scale: float) -> Tensor:
    """[N, H, E]"""
    wide = max(query_NHD.shape[-1], value_NKE.shape[-1])
    query, key, value = (_widened(x, wide) for x in (query_NHD, key_NKD, value_NKE))
    half = query_NHD.is_cuda and query_NHD.dtype in (torch.bfloat16, torch.float16)
    out_NHD = (_varlen if half else _padded)(query, key, value, layout, scale)
    return out_NHD[..., : value_NKE.shape[-1]]


def _widened(x_NHD: Tensor, size: int) -> Tensor:
    """Zeros behind each head up to `size`; F.pad would copy a tensor of that size too."""
    return x_NHD if x_NHD.shape[-1] == size else F.pad(x_NHD, (0, size - x_NHD.shape[-1]))


def _padded(query_NHD: Tensor, key_NKD: Tensor, value_NKD: Tensor, layout: PackedLayout, scale: float) -> Tensor:
    if not query_NHD.is_cuda:
        out_NHD: Tensor = GatheredAttention.apply(query_NHD, key_NKD, value_NKD, layout, scale)
        return out_NHD
    gqa = query_NHD.shape[1] != key_NKD.shape[1]
    outputs = []
    for index_BL in layout.blocks:
        q, k, v = (_gather(x, index_BL) for x in (query_NHD, key_NKD, value_NKD))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=gqa)
        outputs.append(_rows(out))
    return torch.cat(outputs).index_select(0, layout.positions_N)


def _exact(x_NHD: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return x_NHD.float() if x_NHD.dtype in (torch.bfloat16, torch.float16) else x_NHD


def _gather(x_NHD: Tensor, index_BL: Tensor, repeats: int = 1) -> Tensor:
    """[B, H, L, D]: the rows of a block, each head `repeats` times."""
    rows = x_NHD.index_select(0, index_BL.reshape(-1)).view(*index_BL.shape, *x_NHD.shape[1:])
    return (rows if repeats == 1 else rows.repeat_interleave(repeats, dim=2)).transpose(1, 2)


def _rows(block_BHLD: Tensor) -> Tensor:
    """[B x L, H, D]"""
    return block_BHLD.transpose(1, 2).reshape(-1, block_BHLD.shape[1], block_BHLD.shape[3])


class GatheredAttention(torch.autograd.Function):
    """The gathering form on a CPU: stores packed rows, not padded blocks, and gathers them again in the backward pass.

    With shared prompts the blocks have a prompt for every completion, so they are a multiple of the packed rows. Blocks
    of half precision become float32, in which the kernel's backward pass takes half the time.
    """

    @staticmethod
    def forward(
        ctx: Any, query_NHD: Tensor, key_NKD: Tensor, value_NKD: Tensor, layout: PackedLayout, scale: float
    ) -> Tensor:
        """Store the inputs, the output, and the log-sum-exp of the scores of every row and head."""
        repeats = query_NHD.shape[1] // key_NKD.shape[1]
        query, key, value = (_exact(x) for x in (query_NHD, key_NKD, value_NKD))
        outputs, lse = [], []
        for index_BL in layout.blocks:
            q, k, v = _gather(query, index_BL), *(_gather(x, index_BL, repeats) for x in (key, value))
            out, lse_BHL = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True, scale=scale)
            outputs.append(_rows(out))
            lse.append(lse_BHL)
        out_NHD = torch.cat(outputs).index_select(0, layout.positions_N).to(query_NHD.dtype)
        ctx.layout, ctx.scale, ctx.repeats = layout, scale, repeats
        ctx.save_for_backward(query_NHD, key_NKD, value_NKD, out_NHD, *lse)
        return out_NHD

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, d_out_NHD: Tensor) -> Any:
        """Rows of a block that no packed row is taken from have no gradient, so their output does not matter."""
        saved = ctx.saved_tensors  # once: recomputed activations can be taken a single time
        stored, lse = saved[:4], saved[4:]
        query_NHD, key_NKD, value_NKD, out_NHD, d_out_NHD = (_exact(x) for x in (*stored, d_out_NHD))
        d_query, d_key, d_value = (torch.zeros_like(x) for x in (query_NHD, key_NKD, value_NKD))
        total = sum(index_BL.numel() for index_BL in ctx.layout.blocks)
        d_blocks = d_out_NHD.new_zeros(total, *d_out_NHD.shape[1:]).index_copy_(0, ctx.layout.positions_N, d_out_NHD)
        end = 0
        for index_BL, lse_BHL in zip(ctx.layout.blocks, lse, strict=True):
            rows, first = index_BL.reshape(-1), end
            end += len(rows)
            d_out = d_blocks[first:end].view(*index_BL.shape, *d_out_NHD.shape[1:]).transpose(1, 2)
            q, out = _gather(query_NHD, index_BL), _gather(out_NHD, index_BL)
            k, v = (_gather(x, index_BL, ctx.repeats) for x in (key_NKD, value_NKD))
            gradients = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                d_out, q, k, v, out, lse_BHL, 0.0, True, scale=ctx.scale
            )
            for d_x, d_block in zip((d_query, d_key, d_value), gradients, strict=True):
                d_rows = _rows(d_block)
                if d_rows.shape[1] != d_x.shape[1]:
                    d_rows = d_rows.unflatten(1, (d_x.shape[1], ctx.repeats)).sum(2)
                d_x.index_add_(0, rows, d_rows)
        return *(d_x.to(stored[0].dtype) for d_x in (d_query, d_key, d_value)), None, None


def _varlen(query_NHD: Tensor, key_NKD: Tensor, value_NKD: Tensor, layout: PackedLayout, scale: float) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    assert layout.boundaries is not None, "variable-length attention cannot share prompts"
    out: Tensor = varlen_attn(
        query_NHD.contiguous(),
        key_NKD.contiguous(),
        value_NKD.contiguous(),
        layout.boundaries,
        layout.boundaries,
        layout.longest,
        layout.longest,
        scale=scale,
        window_size=(-1, 0),  # causal
        enable_gqa=query_NHD.shape[1] != key_NKD.shape[1],
    )
    return out


def why_not_shared(implementation: str, *, cuda: bool) -> str | None:
    """Why prompts cannot be shared with this attention, or None if they can."""
    if implementation != IMPLEMENTATION:
        return f"{implementation} wants the tokens of a sequence side by side"
    return "the variable-length kernel of CUDA wants the tokens of a sequence side by side" if cuda else None


def choose(requested: str, *, cuda: bool) -> str:
    """The name that transformers is to load the model with; registers ours on the way.

    `requested` is model.attention. Raises ConfigError if flash_attention_2 is requested and not installed.
    """
    from transformers import AttentionInterface

    flash = cuda and find_spec("flash_attn") is not None
    if requested == "flash_attention_2" and not flash:
        raise ConfigError(
            "model.attention=flash_attention_2 needs CUDA and the package flash_attn: use packed, or install it"
        )
    if requested == "flash_attention_2":
        return requested
    # Not registered with AttentionMaskInterface: transformers then builds no mask.
    AttentionInterface.register(IMPLEMENTATION, packed_attention)
    return IMPLEMENTATION
