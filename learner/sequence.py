"""Sequence parallelism: n consecutive ranks, a sequence group, compute one packed row together.

Each rank has a slice of the row's tokens. Everything but attention concerns single tokens. For attention, ranks
exchange tokens for heads: every rank then has all tokens of a part of the heads (Ulysses, arXiv 2309.14509).

    [R rows, all heads] --exchange--> [N rows, heads / n] --attention--> --exchange--> [R rows, all heads]

Shapes: N rows of a packed row, R = N / n rows of a rank's slice, H query heads, K key/value heads, D head size (E of
values), T wanted rows, such as the ones that predict completion tokens, of which a rank has M.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from r1ray.preflight.memory import key_value_copies

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceGroup:
    """The ranks that share a packed row. Producer: `join_group`. Alone, a rank has the whole row."""

    rank: int = 0  # of this process within the group
    size: int = 1
    handle: Any = None  # its process group

    def filler(self, rows: int) -> int:
        """How many rows must follow so that the ranks' slices are equally long."""
        return -rows % self.size

    def slice_of(self, rows: int) -> slice:
        """This rank's rows of a row of this length, which `size` divides."""
        each = rows // self.size
        return slice(self.rank * each, (self.rank + 1) * each)


ALONE = SequenceGroup()


def join_group(rank: int, ranks: int, size: int, timeout_s: float) -> SequenceGroup:
    """The sequence group of this rank: `size` consecutive ranks. A collective of all `ranks`."""
    if size == 1:
        return ALONE
    mine = None
    for first in range(0, ranks, size):
        members = list(range(first, first + size))
        group = torch.distributed.new_group(members, timeout=timedelta(seconds=timeout_s))
        mine = group if rank in members else mine
    return SequenceGroup(rank=rank % size, size=size, handle=mine)


class _Exchange(torch.autograd.Function):
    """[n, ...] -> [n, ...]: part i of the result is what rank i had as the part of this rank. Its own inverse."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, handle: Any) -> Tensor:
        ctx.handle = handle
        return _exchanged(parts, handle)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, d: Tensor) -> Any:
        return _exchanged(d, ctx.handle), None


def _exchanged(parts: Tensor, handle: Any) -> Tensor:
    result = torch.empty_like(parts, memory_format=torch.contiguous_format)
    torch.distributed.all_to_all_single(result, parts.contiguous(), group=handle)
    return result


def attend_over_heads(
    group: SequenceGroup,
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
    query_RHD: Tensor,
    key_RKD: Tensor,
    value_RKE: Tensor,
) -> Tensor:
    """`attend` on all rows of this rank's part of the heads; the result [R, H, E] is of this rank's rows.

    Two exchanges. A key/value head whose query heads are on several ranks goes to each of them.
    """
    rows, n = len(query_RHD), group.size
    copies = key_value_copies(key_RKD.shape[1], n)
    if copies > 1:
        key_RKD, value_RKE = (x.repeat_interleave(copies, dim=1) for x in (key_RKD, value_RKE))
    parts = [x.reshape(rows, n, -1) for x in (query_RHD, key_RKD, value_RKE)]
    packed = torch.cat(parts, dim=2).transpose(0, 1)  # [n, R, a rank's heads of all three]
    received = _Exchange.apply(packed, group.handle).flatten(0, 1).split([x.shape[2] for x in parts], dim=1)
    sizes = [x.shape[2] for x in (query_RHD, key_RKD, value_RKE)]
    out_NHE = attend(*(x.unflatten(1, (-1, size)) for x, size in zip(received, sizes, strict=True)))
    back = _Exchange.apply(out_NHE.reshape(n, rows, -1), group.handle)  # [n, R, the heads of rank n]
    result: Tensor = back.transpose(0, 1).reshape(rows, query_RHD.shape[1], -1)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Which rank computes which of T wanted rows. Producer: `share_rows`."""

    group: SequenceGroup
    mine_M: Tensor  # int64: this rank's, as indices into T
    most: int  # the largest M of any rank
    place_T: Tensor  # int64: where each is found in the ranks' values one after the other, `most` of each

    def gather(self, *values_M: Tensor) -> list[Tensor]:
        """Each [M] -> [T], equal on all ranks of the group.

        Every rank must compute the same function of the results: the gradient of this rank's values is its part of the
        gradient that each rank has of all of them, so nothing is summed.
        """
        return [_Gather.apply(x, self) for x in values_M]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values_M: Tensor, shares: Shares) -> Tensor:
        ctx.mine_M = shares.mine_M
        padded = values_M.new_zeros(shares.most)
        padded[: len(values_M)] = values_M
        parts = [torch.empty_like(padded) for _ in range(shares.group.size)]
        torch.distributed.all_gather(parts, padded, group=shares.group.handle)
        return torch.cat(parts).index_select(0, shares.place_T)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, d_T: Tensor) -> Any:
        return d_T.index_select(0, ctx.mine_M), None


def share_rows(
    source_T: IntArray, rows: int, group: SequenceGroup, device: torch.device
) -> tuple[Shares, IntArray, IntArray]:
    """Divide the wanted rows `source_T` of N rows among the ranks that have them.

    Returns the shares, and of this rank's own [M]: which of the wanted ones they are, and where in its slice.

    Example: rows 0, 3, 1 of 4 are wanted, by two ranks. Rank 0 has wanted rows 0 and 2, in rows 0 and 1 of its slice;
    rank 1 has wanted row 1, in row 1 of its slice.
    """
    each = rows // group.size
    owner_T = source_T // each
    mine_M = np.flatnonzero(owner_T == group.rank)
    most = int(np.bincount(owner_T, minlength=group.size).max())
    place_T = np.empty(len(source_T), dtype=np.int64)
    for rank in range(group.size):
        theirs = np.flatnonzero(owner_T == rank)
        place_T[theirs] = rank * most + np.arange(len(theirs))
    shares = Shares(
        group=group,
        mine_M=torch.from_numpy(mine_M).to(device),
        most=most,
        place_T=torch.from_numpy(place_T).to(device),
    )
    return shares, mine_M, source_T[mine_M] - group.rank * each
