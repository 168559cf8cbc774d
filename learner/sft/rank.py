"""A rank of supervised fine-tuning: the plain class, and the actor as the driver sees it."""

from __future__ import annotations

from typing import Any

from learner.actor import TrainingActor
from learner.group import named_failures
from learner.rank import TrainingRank
from learner.sft.data import read_data
from learner.sft.trainer import SftTrainer
from r1ray.config.schema import Config
from r1ray.data.tokenizer import load_tokenizer


class SftRank(TrainingRank):
    """Trains on conversations. `policy_version` is the number of steps done."""

    def __init__(self, *, config: Config, rank: int, world_size: int, vocab_hash: str | None = None) -> None:
        super().__init__(config=config, rank=rank, world_size=world_size)
        self._vocab_hash = vocab_hash

    def _prepare(self) -> dict[str, Any]:
        data = read_data(self._config, load_tokenizer(self._config.model.path, self._vocab_hash))
        self._trainer = SftTrainer(self._config, self._engine, data, rank=self._rank, world_size=self._world_size)
        return {"steps": self._trainer.steps, "data": data.facts()}

    def train_step(self) -> dict[str, float]:
        """The next step; its metrics, the same on every rank."""
        with named_failures(f"training step {self._version}"):
            metrics = self._trainer.train_step(self._version)
        self._version += 1
        return metrics

    def evaluate(self) -> list[dict[str, Any]]:
        """Figures of the policy as it is on every held-out source, the same on every rank."""
        with named_failures(f"evaluating policy {self._version}"):
            return self._trainer.evaluate()


class SftActor(TrainingActor):
    """One rank in its process. A Ray actor is made of it by the composition root."""

    def __init__(self, *, config: Config, rank: int, world_size: int, vocab_hash: str, address: str) -> None:
        self._sft = SftRank(config=config, rank=rank, world_size=world_size, vocab_hash=vocab_hash)
        super().__init__(config, rank, self._sft, address)

    def train_step(self) -> dict[str, float]:
        return self._sft.train_step()

    def evaluate(self) -> list[dict[str, Any]]:
        return self._sft.evaluate()
