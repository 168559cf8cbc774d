"""Micro-batches: sequences packed into one row of tensors.

Shapes: P prompt tokens and C completion tokens of one sequence; S sequences of a micro-batch, N = sum of P + C over them,
T = sum of C: the completion tokens, the only ones whose log-probabilities are computed.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from learner.attention import PackedLayout, make_layout
from r1ray.types import Float32Array, Int32Array

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedTokens:
    """What a forward pass needs. Producer: `pack_tokens`. Consumer: PolicyModel."""

    input_ids_N: Tensor  # int64
    position_ids_N: Tensor  # int64, from 0 in every sequence
    layout: PackedLayout
    source_T: Tensor  # int64: the row whose hidden state predicts each completion token
    target_T: Tensor  # int64: the completion tokens
    temperature_T: Tensor  # float32: logits are divided by it
    segment_T: Tensor  # int64: which sequence each completion token belongs to
    lengths_S: Tensor  # float32: completion tokens of each sequence


def pack_tokens(
    prompts: SequenceOf[Int32Array],
    completions: SequenceOf[Int32Array],
    temperatures: SequenceOf[float],
    device: torch.device,
) -> PackedTokens:
    """Pack S sequences, each a prompt [P >= 1] and a completion [C >= 1], in the given order."""
    totals = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
    lengths = np.array([len(c) for c in completions])
    ends = np.cumsum(totals)
    # A completion's token t is predicted from the row before it: the last prompt row for t = 0.
    source = np.concatenate([np.arange(end - c - 1, end - 1) for end, c in zip(ends, lengths, strict=True)])
    input_ids = np.concatenate([part for pair in zip(prompts, completions, strict=True) for part in pair])

    def tensor(values: npt.NDArray[np.generic], dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device=device, dtype=dtype)

    return PackedTokens(
        input_ids_N=tensor(input_ids, torch.int64),
        position_ids_N=tensor(np.concatenate([np.arange(n) for n in totals]), torch.int64),
        layout=make_layout(totals, device),
        source_T=tensor(source, torch.int64),
        target_T=tensor(input_ids[source + 1], torch.int64),
        temperature_T=tensor(np.repeat(temperatures, lengths), torch.float32),
        segment_T=tensor(np.repeat(np.arange(len(lengths)), lengths), torch.int64),
        lengths_S=tensor(lengths, torch.float32),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """One completion with its prompt and everything that the objective wants to know of it."""

    prompt: Int32Array  # [P]
    completion: Int32Array  # [C]
    temperature: float
    behavior_logprobs: Float32Array  # [C]
    versions: IntArray  # [C] the policy that sampled each token
    advantage: float
    trained: bool  # False: left out of the loss and its denominators (mask_truncated)


@dataclass(slots=True, kw_only=True)
class MicroBatch:
    """A packed micro-batch of policy optimisation. Without sequences it is a stand-in that adds zero to the gradient."""

    tokens: PackedTokens
    behavior_logprobs_T: Tensor  # float32
    versions_T: Tensor  # int64
    advantages_T: Tensor  # float32
    trained_S: Tensor  # float32, 0 or 1
    sequences: int  # 0: a stand-in
    proximal_logprobs_T: Tensor | None = None  # the learner's own, before the step; filled in where needed
    reference_logprobs_T: Tensor | None = None  # the reference policy's; filled in where needed


def make_micro_batch(sequences: SequenceOf[Sequence], device: torch.device) -> MicroBatch:
    """Pack sequences; none at all gives a stand-in of one prompt and one completion token that is not trained on."""
    rows = sequences or [_DUMMY_SEQUENCE]
    tokens = pack_tokens([s.prompt for s in rows], [s.completion for s in rows], [s.temperature for s in rows], device)
    advantages_S = torch.tensor([s.advantage for s in rows], dtype=torch.float32, device=device)
    return MicroBatch(
        tokens=tokens,
        behavior_logprobs_T=torch.from_numpy(np.concatenate([s.behavior_logprobs for s in rows])).to(device),
        versions_T=torch.from_numpy(np.concatenate([s.versions for s in rows])).to(device),
        advantages_T=advantages_S[tokens.segment_T],
        trained_S=torch.tensor([float(s.trained) for s in rows], device=device),
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
