"""A sequence classifier with one label, asked for the scores of packed sequences.

Shapes: N packed tokens of S sequences, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learner import attention
from learner.attention import PackedLayout, make_layout
from learner.model import DTYPES, silence_dropout
from learner.preference.rows import Example
from learner.supported import check_packable
from r1ray.config.schema import ModelConfig
from r1ray.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedExamples:
    """A micro-batch of whole examples. Producer: `pack_examples`. Consumer: RewardModel and the losses."""

    input_ids_N: Tensor  # int64
    position_ids_N: Tensor  # int64, from 0 in every sequence
    layout: PackedLayout
    last_S: Tensor  # int64: the row of each sequence's last token, which is scored
    labels: Tensor  # float32 [examples]: 1 where safe; without meaning for pairs


def pack_examples(examples: Sequence[Example], device: torch.device) -> PackedExamples:
    """Pack the sequences of the examples in order: the two of a pair stand side by side."""
    sequences = [s for e in examples for s in e.sequences]
    lengths = [len(s) for s in sequences]
    return PackedExamples(
        input_ids_N=torch.tensor([i for s in sequences for i in s], device=device),
        position_ids_N=torch.from_numpy(np.concatenate([np.arange(n) for n in lengths])).to(device),
        layout=make_layout(lengths, device),
        last_S=torch.from_numpy(np.cumsum(lengths) - 1).to(device),
        labels=torch.tensor([float(bool(e.safe)) for e in examples], device=device),
    )


class RewardModel(nn.Module):
    """`hf`, a `...ForSequenceClassification` whose head is the linear layer `score`."""

    def __init__(self, hf: Any) -> None:
        super().__init__()
        self.hf = hf

    def forward(self, batch: PackedExamples) -> Tensor:
        """The scores, float32 [S]."""
        backbone = getattr(self.hf, self.hf.base_model_prefix)
        hidden_NH = backbone(
            input_ids=batch.input_ids_N[None],
            position_ids=batch.position_ids_N[None],
            use_cache=False,
            **batch.layout.kwargs(self.hf.config._attn_implementation),
        ).last_hidden_state[0]
        score: Tensor = self.hf.score(hidden_NH.index_select(0, batch.last_S))[:, 0].float()
        return score


def load_base(model: ModelConfig, pad_token_id: int | None, seed: int) -> RewardModel:
    """The language model (or reward model) of the folder with a head for one score, new where it has none.

    Raises ConfigError for a folder that cannot be read so, and for layers that mix packed sequences.
    """
    from transformers import AutoModelForSequenceClassification
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(seed)  # of the new head
    implementation = attention.choose(model.attention, cuda=torch.cuda.is_available())
    try:
        hf = AutoModelForSequenceClassification.from_pretrained(
            model.path,
            num_labels=1,
            dtype=DTYPES[model.dtype],
            attn_implementation=implementation,
            local_files_only=True,
        )
    except (OSError, ValueError) as e:
        raise ConfigError(f"--model {model.path} cannot be loaded as a sequence classifier: {e}") from e
    check_packable(hf, model.max_length)
    if not isinstance(getattr(hf, "score", None), nn.Linear):
        raise ConfigError(f"--model {model.path}: the head of {type(hf).__name__} is no linear layer `score`")
    hf.config.pad_token_id = pad_token_id  # transformers finds the last token of a row by it
    silence_dropout(hf)
    if model.activation_checkpointing:
        hf.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    hf.train()
    return RewardModel(hf)


def pairwise_loss(score_S: Tensor) -> Tensor:
    """Sum over pairs of -log sigmoid(chosen - rejected) (Bradley and Terry, 1952); S = (chosen, rejected), again and again."""
    return -F.logsigmoid(score_S[0::2] - score_S[1::2]).sum()


def pointwise_loss(score_S: Tensor, labels_S: Tensor) -> Tensor:
    """Sum over responses of the cross-entropy of sigmoid(score) and the label, 1 for safe."""
    return F.binary_cross_entropy_with_logits(score_S, labels_S, reduction="sum")
