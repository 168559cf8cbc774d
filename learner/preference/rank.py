"""A rank of reward-model training.

    row --> (chosen, rejected) or one response --> packed scores --> loss, a mean over the rows of a step

The exported folder is a Hugging Face `...ForSequenceClassification` with one label, and contains a report.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learner.examples import Examples, SupervisedData
from learner.export import export_model
from learner.model_folder import Fresh
from learner.preference.model import PackedExamples, RewardModel, empty_base, loss_and_hits, new_head, pack_examples
from learner.preference.report import measure
from learner.preference.rows import Example, part_of, read_data
from learner.supervised import SupervisedRank
from r1ray.data.tokenizer import Tokenizer, load_tokenizer
from r1ray.rewards.learned.preference import REPORT, Kind

_DUMMY_SEQUENCE = np.zeros(1, dtype=np.int32)
_SCORED_AT_ONCE = 64
"""Rows that a rank tokenizes together in an evaluation."""


class RewardModelRank(SupervisedRank[Example, PackedExamples]):
    """Trains on preferences."""

    use = "reward-model"
    _evaluated: tuple[int, list[dict[str, Any]]] | None = None  # (step, its held-out metrics)

    def _empty_module(self) -> RewardModel:
        tokenizer = load_tokenizer(self._config.model.path, self._vocab_hash)
        pad = getattr(tokenizer, "pad_token_id", None)
        return empty_base(self._config.model, tokenizer.eos_token_id if pad is None else pad)

    def _fresh(self, module: Any) -> Fresh:
        return new_head(module, self._config.run.seed)

    def _read_data(self, tokenizer: Tokenizer) -> SupervisedData[Example]:
        return read_data(self._config, tokenizer)

    def _pack(self, examples: Sequence[Example]) -> PackedExamples:
        responses = 2 if self._kind == "pairwise" else 1
        dummy = Example(sequences=(_DUMMY_SEQUENCE,) * responses, lengths=(1,) * responses)
        return pack_examples(examples or [dummy], self._engine.device, self._sequence)

    def _count(self, batch: Sequence[Example]) -> int:
        return len(batch)

    def _loss(self, model: Any, packed: PackedExamples) -> tuple[Tensor, Tensor]:
        return loss_and_hits(self._kind, model(packed), packed.labels)

    def _metrics(self, loss: float, accuracy: float, batch: Sequence[Example]) -> dict[str, float]:
        return {
            "reward_model/loss": loss,
            "reward_model/accuracy": accuracy,
            "batch/rows": float(len(batch)),
        }

    def evaluate(self) -> list[dict[str, Any]]:
        """Metrics of each held-out source (`learner.preference.report`), equal on every rank."""
        rows = super().evaluate()
        self._evaluated = (self._version, rows)
        return rows

    def _measure(self, name: str, examples: Examples[Example]) -> dict[str, Any]:
        rows = [examples[i] for i in range(len(examples))]
        return {"source": name, **measure(self._kind, rows, self._scores(rows))}

    def _scores(self, rows: Sequence[Example]) -> list[float]:
        """The score of every sequence, in the order of the rows; equal on every rank."""
        width, found = len(rows[0].sequences), []
        for first in range(0, len(rows), _SCORED_AT_ONCE * self._replicas):
            batch = rows[first : first + _SCORED_AT_ONCE * self._replicas]
            scores = torch.zeros(len(batch), width, dtype=torch.float64, device=self._engine.device)
            for packed, indices in self._micro_batches(batch):
                score_S = self._engine.forward_only(packed)
                if indices and self._counts:
                    scores[indices] = score_S.reshape(-1, width).double()
            found += self._engine.all_reduce(scores, "sum").flatten().tolist()
        return found

    def export(self, folder: Path | str) -> None:
        """Write the reward model and its report to `folder`, completely or not at all. Raises DiskFull."""
        if self._evaluated is None or self._evaluated[0] != self._version:
            self.evaluate()  # a rank that has resumed at the last step
        hf = self._engine.module.hf
        config = json.loads(hf.config.to_json_string()) | {"architectures": [type(hf).__name__]}
        report = json.dumps(self._report(), indent=1) + "\n"
        files = {"config.json": json.dumps(config), REPORT: report}
        writer = self._rank == 0
        export_model(self.named_weights(), source=self._folder, target=Path(folder), writer=writer, files=files)

    def _report(self) -> dict[str, Any]:
        assert self._evaluated is not None
        return {
            "kind": self._kind,
            "judge": part_of(self._config.reward_model),
            "trained_rows": len(self._data.train),
            "left_out": self._data.left_out,
            "steps": self._version,
            "held_out": {row["source"]: {k: v for k, v in row.items() if k != "source"} for row in self._evaluated[1]},
        }

    @property
    def _kind(self) -> Kind:
        return self._config.reward_model.kind
