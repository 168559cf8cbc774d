"""Base class of the ranks that train on fixed rows: supervised fine-tuning and reward models.

A step's loss is a mean over its batch on all ranks together. Every rank knows the whole batch, a pure function of seed
and step, so it knows the denominator without communication.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from learner.examples import Example, Examples, SupervisedData, total_steps
from learner.group import named_failures
from learner.packing import SequenceRef, divide
from learner.rank import TrainingRank
from learner.schedules import learning_rate
from r1ray.config.rules import SupervisedUse, row_tokens, supervised_settings
from r1ray.config.schema import Config
from r1ray.data.order import permute
from r1ray.data.tokenizer import Tokenizer, load_tokenizer

Packed = TypeVar("Packed")


class SupervisedRank(TrainingRank, abc.ABC, Generic[Example, Packed]):
    """Trains on rows; `policy_version` is the number of completed steps."""

    use: ClassVar[SupervisedUse]

    def __init__(self, *, config: Config, rank: int, vocab_hash: str | None = None, host: str = "127.0.0.1") -> None:
        """`vocab_hash`: the tokenizer must have this vocabulary, unless it is None."""
        super().__init__(config=config, rank=rank, host=host)
        self._vocab_hash = vocab_hash
        self._settings = supervised_settings(config, self.use)

    # -- implemented by each kind of training -----------------------------------------------------------------------

    @abc.abstractmethod
    def _read_data(self, tokenizer: Tokenizer) -> SupervisedData[Example]:
        """Read the rows. Raises ConfigError."""

    @abc.abstractmethod
    def _pack(self, examples: Sequence[Example]) -> Packed:
        """One micro-batch. Without examples: of a dummy sequence, which lets this rank take part in the collectives."""

    @abc.abstractmethod
    def _count(self, batch: Sequence[Example]) -> int:
        """Number of terms that the loss of a batch is the mean of."""

    @abc.abstractmethod
    def _loss(self, model: Any, packed: Packed) -> tuple[Tensor, Tensor]:
        """(sum of the losses, sum of the hits) over the terms of a micro-batch, both scalar."""

    @abc.abstractmethod
    def _metrics(self, loss: float, accuracy: float, batch: Sequence[Example]) -> dict[str, float]:
        """Metrics of a step with this mean loss and this share of hits."""

    @abc.abstractmethod
    def _measure(self, name: str, examples: Examples[Example]) -> dict[str, Any]:
        """Metrics of the held-out source `name`, equal on every rank."""

    # -- common to all ----------------------------------------------------------------------------------------------

    def _prepare(self) -> dict[str, Any]:
        self._data = self._read_data(load_tokenizer(self._config.model.path, self._vocab_hash))
        self.steps = total_steps(self._config, self.use, len(self._data.train))
        self.steps_per_epoch = self.steps // self._settings.epochs
        return {"steps": self.steps, "data": self._data.facts()}

    def places(self, step: int) -> list[int]:
        """Numbers of the rows of a step: each epoch takes every one once, in an order of its own."""
        epoch, place = divmod(step, self.steps_per_epoch)
        size, n = self._settings.batch_size, len(self._data.train)
        key = f"{self._config.run.seed}/{self.use}/{epoch}"
        return [permute(i, n, key) for i in range(place * size, min((place + 1) * size, n))]

    def train_step(self) -> dict[str, float]:
        """Train the next step; its metrics, equal on every rank."""
        with named_failures(f"training step {self._version}"):
            metrics = self._train(self._version)
        self._version += 1
        return metrics

    def evaluate(self) -> list[dict[str, Any]]:
        """Metrics of each held-out source, equal on every rank."""
        with named_failures(f"evaluating policy {self._version}"):
            return [self._measure(name, examples) for name, examples in self._data.held_out.items()]

    def _train(self, step: int) -> dict[str, float]:
        started = time.perf_counter()
        batch = [self._data.train[place] for place in self.places(step)]
        terms, tokens = self._count(batch), sum(example.tokens for example in batch)
        seen = [0.0, 0.0]  # sums over this rank's terms: loss, hits

        def share(model: Any, micro_batch: tuple[Packed, list[int]]) -> Tensor:
            packed, indices = micro_batch
            loss, hits = self._loss(model, packed)
            loss = loss * float(bool(indices))
            seen[0] += float(loss.detach())
            seen[1] += float(hits) if indices else 0.0
            return loss / terms

        lr = learning_rate(step, self.steps, self._config.learner.optimizer)
        report = self._engine.step(self._micro_batches(batch), share, lr=lr)
        loss, hits = self._sum(seen)
        seconds = time.perf_counter() - started
        section = self.use.replace("-", "_")
        metrics = {
            **self._metrics(loss / terms, hits / terms, batch),
            f"{section}/epoch": (step + 1) / self.steps_per_epoch,
            "batch/tokens": float(tokens),
            "train/lr": lr,
            "train/skipped": float(not report.applied),
            "learner/step_s": seconds,
            "learner/tokens_per_s": tokens / seconds,
        }
        return {**metrics, "train/grad_norm": report.grad_norm} if report.applied else metrics

    def _micro_batches(self, batch: Sequence[Example]) -> list[tuple[Packed, list[int]]]:
        """This replica's part of a batch: (packed, indices of its examples), equally many on each; some are empty."""
        refs = [SequenceRef(group=i, completion=0, tokens=example.tokens) for i, example in enumerate(batch)]
        parts = divide(refs, self._replicas, row_tokens(self._config))[self._replica]
        indices = [[ref.group for ref in part] for part in parts]
        return [(self._pack([batch[i] for i in part]), part) for part in indices]

    def _sum(self, values: Sequence[float]) -> list[float]:
        mine = torch.tensor(values, dtype=torch.float64, device=self._engine.device) * float(self._counts)
        summed: list[float] = self._engine.all_reduce(mine, "sum").tolist()
        return summed
