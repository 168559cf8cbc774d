"""A rank of supervised fine-tuning. Loss: -1/T sum_t log p(token t) over all T response tokens of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from learner.batch import PackedTokens, pack_tokens
from learner.examples import Examples, SupervisedData
from learner.sft.data import Example, read_data
from learner.supervised import SupervisedRank
from r1ray.data.tokenizer import Tokenizer

_DUMMY_SEQUENCE = Example(prompt=np.zeros(1, dtype=np.int32), completion=np.zeros(1, dtype=np.int32))

_EVALUATED_AT_ONCE = 64
"""Conversations that a rank tokenizes together in an evaluation."""


class SftRank(SupervisedRank[Example, PackedTokens]):
    """Trains on conversations."""

    use = "sft"

    def _read_data(self, tokenizer: Tokenizer) -> SupervisedData[Example]:
        return read_data(self._config, tokenizer)

    def _pack(self, examples: Sequence[Example]) -> PackedTokens:
        rows = examples or [_DUMMY_SEQUENCE]
        prompts, completions = [row.prompt for row in rows], [row.completion for row in rows]
        return pack_tokens(prompts, completions, [1.0] * len(rows), self._engine.device, shared_by=self._sequence)

    def _count(self, batch: Sequence[Example]) -> int:
        return sum(len(example.completion) for example in batch)

    def _loss(self, model: Any, packed: PackedTokens) -> tuple[Tensor, Tensor]:
        logprob_T, hit_T = model(packed, greedy=True)
        return -logprob_T.sum(), hit_T.sum()

    def _metrics(self, loss: float, accuracy: float, batch: Sequence[Example]) -> dict[str, float]:
        return {
            "sft/loss": loss,
            "sft/perplexity": _perplexity(loss),
            "sft/token_accuracy": accuracy,
            "batch/conversations": float(len(batch)),
            "batch/response_tokens": float(self._count(batch)),
        }

    def _measure(self, name: str, examples: Examples[Example]) -> dict[str, Any]:
        sums = [0.0, 0.0, 0.0]  # loss, hits, tokens
        for first in range(0, len(examples), _EVALUATED_AT_ONCE * self._replicas):
            count = min(_EVALUATED_AT_ONCE * self._replicas, len(examples) - first)
            for packed, indices in self._micro_batches([examples[first + i] for i in range(count)]):
                logprob_T, hit_T = self._engine.forward_only(packed, greedy=True)
                if indices:
                    sums[0] -= float(logprob_T.sum())
                    sums[1] += float(hit_T.sum())
                    sums[2] += len(logprob_T)
        loss, hits, tokens = self._sum(sums)
        return {
            "source": name,
            "conversations": len(examples),
            "tokens": tokens,
            "loss": loss / tokens,
            "perplexity": _perplexity(loss / tokens),
            "token_accuracy": hits / tokens,
        }


def _perplexity(loss: float) -> float:
    return math.inf if loss > 700.0 else math.exp(loss)
