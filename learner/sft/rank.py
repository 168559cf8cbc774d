"""A rank of supervised fine-tuning.

The loss of a step is the mean over all response tokens of its conversations, on all ranks together:
-1/T sum_t log p(token t). Every rank knows the whole batch, a pure function of seed and step, so it knows T without asking
the others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learner.batch import PackedTokens, pack_tokens
from learner.group import named_failures
from learner.packing import SequenceRef, divide
from learner.rank import TrainingRank
from learner.schedules import learning_rate
from learner.sft.data import Example, Examples, read_data, total_steps
from r1ray.config.schema import Config
from r1ray.data.order import permute
from r1ray.data.tokenizer import load_tokenizer

_DUMMY_SEQUENCE = Example(prompt=np.zeros(1, dtype=np.int32), completion=np.zeros(1, dtype=np.int32))
"""Lets a rank without conversations take part in the collectives of a micro-batch."""

_EVALUATED_AT_ONCE = 64
"""Conversations that a rank tokenizes together in an evaluation."""


class SftRank(TrainingRank):
    """Trains on conversations; `policy_version` is the number of completed steps."""

    def __init__(self, *, config: Config, rank: int, vocab_hash: str | None = None, host: str = "127.0.0.1") -> None:
        """`vocab_hash`: the tokenizer must have this vocabulary, unless it is None."""
        super().__init__(config=config, rank=rank, host=host)
        self._vocab_hash = vocab_hash

    def _prepare(self) -> dict[str, Any]:
        self._data = read_data(self._config, load_tokenizer(self._config.model.path, self._vocab_hash))
        self.steps = total_steps(self._config, len(self._data.train))
        self.steps_per_epoch = self.steps // self._config.sft.epochs
        return {"steps": self.steps, "data": self._data.facts()}

    def places(self, step: int) -> list[int]:
        """Numbers of the conversations of a step: each epoch takes every one once, in an order of its own."""
        epoch, place = divmod(step, self.steps_per_epoch)
        size, n = self._config.sft.batch_size, len(self._data.train)
        key = f"{self._config.run.seed}/sft/{epoch}"
        return [permute(i, n, key) for i in range(place * size, min((place + 1) * size, n))]

    def train_step(self) -> dict[str, float]:
        """Train the next step; its metrics, equal on every rank."""
        with named_failures(f"training step {self._version}"):
            metrics = self._train(self._version)
        self._version += 1
        return metrics

    def evaluate(self) -> list[dict[str, Any]]:
        """Loss, perplexity and token accuracy on each held-out source, equal on every rank."""
        with named_failures(f"evaluating policy {self._version}"):
            return [self._measure(name, examples) for name, examples in self._data.held_out.items()]

    def _train(self, step: int) -> dict[str, float]:
        started = time.perf_counter()
        batch = [self._data.train[place] for place in self.places(step)]
        tokens = sum(len(example.completion) for example in batch)
        seen = [0.0, 0.0]  # sums over this rank's tokens: loss, hits

        def share(model: Any, micro_batch: tuple[PackedTokens, float]) -> Tensor:
            packed, counts = micro_batch
            logprob_T, hit_T = model(packed, greedy=True)
            loss: Tensor = -logprob_T.sum() * counts
            seen[0] += float(loss.detach())
            seen[1] += float(hit_T.sum()) * counts
            return loss / tokens

        lr = learning_rate(step, self.steps, self._config.learner.optimizer)
        report = self._engine.step(self._micro_batches(batch), share, lr=lr)
        loss, hits = self._sum(seen)
        seconds = time.perf_counter() - started
        metrics = {
            "sft/loss": loss / tokens,
            "sft/perplexity": _perplexity(loss / tokens),
            "sft/token_accuracy": hits / tokens,
            "sft/epoch": (step + 1) / self.steps_per_epoch,
            "batch/conversations": float(len(batch)),
            "batch/tokens": float(sum(example.tokens for example in batch)),
            "batch/response_tokens": float(tokens),
            "train/lr": lr,
            "train/skipped": float(not report.applied),
            "learner/step_s": seconds,
            "learner/tokens_per_s": sum(example.tokens for example in batch) / seconds,
        }
        return {**metrics, "train/grad_norm": report.grad_norm} if report.applied else metrics

    def _measure(self, name: str, examples: Examples) -> dict[str, Any]:
        sums = [0.0, 0.0, 0.0]  # loss, hits, tokens
        for first in range(0, len(examples), _EVALUATED_AT_ONCE * self._world_size):
            count = min(_EVALUATED_AT_ONCE * self._world_size, len(examples) - first)
            batch = [examples[first + i] for i in range(count)]
            for packed, counts in self._micro_batches(batch):
                logprob_T, hit_T = self._engine.forward_only(packed, greedy=True)
                sums[0] -= float(logprob_T.sum()) * counts
                sums[1] += float(hit_T.sum()) * counts
                sums[2] += len(logprob_T) * counts
        loss, hits, tokens = self._sum(sums)
        return {
            "source": name,
            "conversations": len(examples),
            "tokens": tokens,
            "loss": loss / tokens,
            "perplexity": _perplexity(loss / tokens),
            "token_accuracy": hits / tokens,
        }

    def _micro_batches(self, batch: Sequence[Example]) -> list[tuple[PackedTokens, float]]:
        """This rank's part of a batch: (packed conversations, 1.0), or (a dummy sequence, 0.0)."""
        refs = [SequenceRef(group=i, completion=0, tokens=example.tokens) for i, example in enumerate(batch)]
        parts = divide(refs, self._world_size, self._config.learner.micro_batch_tokens)[self._rank]
        made = []
        for part in parts:
            rows = [batch[ref.group] for ref in part] or [_DUMMY_SEQUENCE]
            packed = pack_tokens(
                [r.prompt for r in rows], [r.completion for r in rows], [1.0] * len(rows), self._engine.device
            )
            made.append((packed, float(bool(part))))
        return made

    def _sum(self, values: Sequence[float]) -> list[float]:
        mine = torch.tensor(values, dtype=torch.float64, device=self._engine.device)
        summed: list[float] = self._engine.all_reduce(mine, "sum").tolist()
        return summed


def _perplexity(loss: float) -> float:
    return math.inf if loss > 700.0 else math.exp(loss)
