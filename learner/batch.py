"""Micro-batches: sequences packed into one row of tensors.

Shapes: P prompt tokens and C completion tokens of one sequence; S sequences of a micro-batch, N = sum of P + C over
them (a shared P counted once), T = sum of C: the completion tokens, the only ones whose log-probabilities are computed.
With sequence parallelism a rank has R of the N rows and M of the T tokens, else R = N and M = T.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from learner.attention import PackedLayout, make_layout, make_shared_layout
from learner.sequence import ALONE, SequenceGroup, Shares, share_rows
from r1ray.types import Float32Array, Int32Array, RoutedExperts

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedExperts:
    """vLLM's choices for Q of a rank's completion tokens. L layers, K experts of a token."""

    token_Q: Tensor  # int64: which of the T completion tokens
    row_Q: Tensor  # int64: which of the rank's R rows predicts it; several completions may share a prompt's last row
    experts_QLK: Tensor  # int16
    first_F: Tensor  # int64: which of the Q are the first of their row


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedTokens:
    """What a forward pass needs. Producer: `pack_tokens`. Consumer: PolicyModel."""

    input_ids_R: Tensor  # int64
    position_ids_R: Tensor  # int64, from 0 in every sequence
    layout: PackedLayout  # of all N rows
    source_M: Tensor  # int64: which of the R rows has the hidden state that predicts each completion token
    target_M: Tensor  # int64: the completion tokens
    temperature_M: Tensor  # float32: logits are divided by it
    shares: Shares | None  # who has which of the T tokens; None without sequence parallelism
    segment_T: Tensor  # int64: which sequence each completion token belongs to
    lengths_S: Tensor  # float32: completion tokens of each sequence
    experts: RecordedExperts | None = None  # None: of no token


def pack_tokens(
    prompts: SequenceOf[Int32Array],
    completions: SequenceOf[Int32Array],
    temperatures: SequenceOf[float],
    device: torch.device,
    *,
    groups: SequenceOf[int] | None = None,
    shared_by: SequenceGroup = ALONE,
    experts: SequenceOf[RoutedExperts | None] = (),
) -> PackedTokens:
    """Pack S sequences, each a prompt [P >= 1] and a completion [C >= 1], in the given order.

    `groups` [S]: sequences of equal numbers, side by side, have the same prompt, which is packed once for them. The
    result is the same as without; only attention that gathers rows can use it (`attention.why_not_shared`).

    `shared_by`: the ranks that compute this row together. It gets a last sequence of up to n - 1 tokens that nothing
    is predicted from, so that their slices are equally long.

    `experts` [S]: vLLM's choices for the tokens of each completion, if they were recorded.
    """
    lengths = np.array([len(c) for c in completions])
    totals = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
    parts, rows_S, end, prompt_rows = [], [], 0, np.empty(0, dtype=np.int64)
    for s, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        if groups is None or s == 0 or groups[s] != groups[s - 1]:
            prompt_rows = np.arange(end, end + len(prompt))
            parts.append(prompt)
            end += len(prompt)
        rows_S.append(np.concatenate([prompt_rows, np.arange(end, end + len(completion))]))
        parts.append(completion)
        end += len(completion)
    if filler := shared_by.filler(end):
        parts.append(np.zeros(filler, dtype=np.int32))
        totals.append(filler)
        rows_S.append(np.arange(end, end + filler))
    rows = end + filler
    # A completion's token t is predicted from the row before it: the last prompt row for t = 0.
    source = np.concatenate([r[-c - 1 : -1] for r, c in zip(rows_S, lengths, strict=False)])  # not of the filler
    shares, mine = None, np.arange(len(source))
    if shared_by.size > 1:
        shares, mine, source = share_rows(source, rows, shared_by, device)
    here = shared_by.slice_of(rows)

    def tensor(values: npt.NDArray[np.generic], dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device=device, dtype=dtype)

    return PackedTokens(
        input_ids_R=tensor(np.concatenate(parts)[here], torch.int64),
        position_ids_R=tensor(_positions(rows_S, rows)[here], torch.int64),
        layout=(
            make_layout(totals, device, shared_by) if groups is None else make_shared_layout(rows_S, device, shared_by)
        ),
        source_M=tensor(source, torch.int64),
        target_M=tensor(np.concatenate(completions)[mine], torch.int64),
        temperature_M=tensor(np.repeat(temperatures, lengths)[mine], torch.float32),
        shares=shares,
        segment_T=tensor(np.repeat(np.arange(len(lengths)), lengths), torch.int64),
        lengths_S=tensor(lengths, torch.float32),
        experts=_recorded(experts, lengths, mine, source, device),
    )


def _positions(rows_S: list[IntArray], rows: int) -> IntArray:
    """[N] from 0 in every sequence."""
    position_ids = np.empty(rows, dtype=np.int64)
    for rows_of_one in rows_S:
        position_ids[rows_of_one] = np.arange(len(rows_of_one))
    return position_ids


def _recorded(
    experts: SequenceOf[RoutedExperts | None],
    lengths: IntArray,
    mine_M: IntArray,
    row_M: IntArray,
    device: torch.device,
) -> RecordedExperts | None:
    """The recorded choices of a rank's M tokens, whose hidden states are in `row_M`."""
    starts = np.cumsum(lengths) - lengths
    found = [
        (start + np.arange(len(e.ids)) * e.every, e.ids)
        for start, e in zip(starts, experts, strict=False)
        if e is not None
    ]
    if not found:
        return None
    token_Q, ids = (np.concatenate(parts) for parts in zip(*found, strict=True))
    here = np.isin(token_Q, mine_M)
    token_Q, ids = token_Q[here], ids[here].astype(np.int16)
    row_Q = row_M[np.searchsorted(mine_M, token_Q)]
    return RecordedExperts(
        token_Q=torch.from_numpy(token_Q).to(device),
        row_Q=torch.from_numpy(row_Q).to(device),
        experts_QLK=torch.from_numpy(ids).to(device),
        first_F=torch.from_numpy(np.unique(row_Q, return_index=True)[1]).to(device),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """One completion with its prompt and everything that the objective needs."""

    prompt: Int32Array  # [P]
    completion: Int32Array  # [C]
    temperature: float
    behavior_logprobs: Float32Array  # [C]
    versions: IntArray  # [C] the policy that sampled each token
    advantage: float
    trained: bool  # False: left out of the loss and its denominators (mask_truncated)
    represents: int = 1  # completions that its metrics count for: itself, and those without a gradient left out for it
    experts: RoutedExperts | None = None  # that vLLM chose


@dataclass(slots=True, kw_only=True)
class MicroBatch:
    """A packed micro-batch of policy optimisation.

    Without sequences it is a stand-in that adds zero to the gradient.
    """

    tokens: PackedTokens
    behavior_logprobs_T: Tensor  # float32
    versions_T: Tensor  # int64
    advantages_T: Tensor  # float32
    trained_S: Tensor  # float32, 0 or 1
    represents_S: Tensor  # float32: completions that the metrics of each sequence count for
    sequences: int  # 0: a stand-in
    proximal_logprobs_T: Tensor | None = None  # the learner's own, before the step; filled in where needed
    reference_logprobs_T: Tensor | None = None  # the reference policy's; filled in where needed


def make_micro_batch(
    sequences: SequenceOf[Sequence],
    device: torch.device,
    *,
    groups: SequenceOf[int] | None = None,
    shared_by: SequenceGroup = ALONE,
) -> MicroBatch:
    """Pack sequences; none at all gives a stand-in of one prompt and one completion token that is not trained on.

    `groups` [S] and `shared_by`: as in `pack_tokens`.
    """
    rows = sequences or [_DUMMY_SEQUENCE]
    tokens = pack_tokens(
        [s.prompt for s in rows],
        [s.completion for s in rows],
        [s.temperature for s in rows],
        device,
        groups=groups or None,
        shared_by=shared_by,
        experts=[s.experts for s in rows],
    )
    advantages_S = torch.tensor([s.advantage for s in rows], dtype=torch.float32, device=device)
    return MicroBatch(
        tokens=tokens,
        behavior_logprobs_T=torch.from_numpy(np.concatenate([s.behavior_logprobs for s in rows])).to(device),
        versions_T=torch.from_numpy(np.concatenate([s.versions for s in rows])).to(device),
        advantages_T=advantages_S[tokens.segment_T],
        trained_S=torch.tensor([float(s.trained) for s in rows], device=device),
        represents_S=torch.tensor([float(s.represents) for s in rows], device=device),
        sequences=len(sequences),
    )


_DUMMY_SEQUENCE = Sequence(
    prompt=np.zeros(1, dtype=np.int32),
    completion=np.zeros(1, dtype=np.int32),
    temperature=1.0,
    behavior_logprobs=np.zeros(1, dtype=np.float32),
    versions=np.full(1, -1, dtype=np.int64),
    advantage=0.0,
    trained=False,
)
