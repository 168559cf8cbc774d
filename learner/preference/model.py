"""Sequence classifier with one label that scores packed sequences.

Shapes: N packed tokens of S sequences, H hidden size. With sequence parallelism a rank has R of the rows and the last
tokens of M sequences, else R = N and M = S.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learner.attention import PackedLayout, make_layout
from learner.model import PackedModel, empty_for_training
from learner.model_folder import Fresh
from learner.preference.rows import Example
from learner.sequence import ALONE, SequenceGroup, Shares, share_rows
from r1ray.config.schema import ModelConfig
from r1ray.errors import ConfigError
from r1ray.rewards.learned.preference import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedExamples:
    """A micro-batch of complete examples. Producer: `pack_examples`. Consumers: `RewardModel`, `loss_and_hits`."""

    input_ids_R: Tensor  # int64
    position_ids_R: Tensor  # int64, from 0 in every sequence
    layout: PackedLayout  # of all N rows
    last_M: Tensor  # int64: which of the R rows are last tokens, which are scored
    shares: Shares | None  # who has which of the S last tokens; None without sequence parallelism
    labels: Tensor  # float32 [examples]: 1 if safe; unused for pairs


def pack_examples(
    examples: Sequence[Example], device: torch.device, shared_by: SequenceGroup = ALONE
) -> PackedExamples:
    """Pack the sequences of the examples in order; the two of a pair are adjacent. `shared_by`: as in `pack_tokens`."""
    sequences = [np.asarray(s) for e in examples for s in e.sequences]
    last = np.cumsum([len(s) for s in sequences]) - 1
    rows = int(last[-1]) + 1
    if filler := shared_by.filler(rows):
        sequences.append(np.zeros(filler, dtype=np.int32))
        rows += filler
    lengths = [len(s) for s in sequences]
    shares = None
    if shared_by.size > 1:
        shares, _, last = share_rows(last, rows, shared_by, device)
    here = shared_by.slice_of(rows)
    return PackedExamples(
        input_ids_R=torch.from_numpy(np.concatenate(sequences)[here].astype(np.int64)).to(device),
        position_ids_R=torch.from_numpy(np.concatenate([np.arange(n) for n in lengths])[here]).to(device),
        layout=make_layout(lengths, device, shared_by),
        last_M=torch.from_numpy(last).to(device),
        shares=shares,
        labels=torch.tensor([float(bool(e.safe)) for e in examples], device=device),
    )


class RewardModel(PackedModel):
    """`hf`, a `...ForSequenceClassification` with the linear head `score`."""

    def forward(self, batch: PackedExamples) -> Tensor:
        """The scores, float32 [S]."""
        hidden_RH = self.hidden(batch.input_ids_R, batch.position_ids_R, batch.layout)
        score: Tensor = self.hf.score(hidden_RH.index_select(0, batch.last_M))[:, 0].float()
        return score if batch.shares is None else batch.shares.gather(score)[0]


def empty_base(model: ModelConfig, pad_token_id: int | None) -> RewardModel:
    """The language or reward model of the folder as a reward model, without its weights.

    Raises ConfigError for a folder that holds no such model, and for layers that mix packed sequences.
    """
    from transformers import AutoModelForSequenceClassification

    path = Path(model.path)
    hf = empty_for_training(AutoModelForSequenceClassification, model, path, "a sequence classifier", num_labels=1)
    if not isinstance(getattr(hf, "score", None), nn.Linear):
        raise ConfigError(f"model.path = {path}: the head of {type(hf).__name__} is not a linear layer `score`")
    hf.config.pad_token_id = pad_token_id  # transformers uses it to find the last token of a row
    return RewardModel(hf)


def new_head(model: RewardModel, seed: int) -> Fresh:
    """What gives a head to a base that has none."""
    std = float(getattr(model.hf.config, "initializer_range", 0.02))

    def fill(weight: Tensor) -> None:
        weight.normal_(std=std, generator=torch.Generator().manual_seed(seed))

    return {"score.weight": fill}


def loss_and_hits(kind: Kind, score_S: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of the losses, sum of the hits) over the rows of a micro-batch.

    Pairs, S = (chosen, rejected, chosen, rejected, ...): -log sigmoid(chosen - rejected) (Bradley and Terry, 1952), and
    a tie counts as half a hit. Single responses: the cross-entropy of sigmoid(score) and the label, which is 1 if safe.
    """
    if kind == "pairwise":
        margin = score_S[0::2] - score_S[1::2]
        return -F.logsigmoid(margin).sum(), 0.5 * (1.0 + margin.detach().sign()).sum()
    hits = ((score_S.detach() > 0) == (labels > 0.5)).float().sum()
    return F.binary_cross_entropy_with_logits(score_S, labels, reduction="sum"), hits
