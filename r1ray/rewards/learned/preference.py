"""Reward model: the score of a response by a model that learned preferences or safety."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from r1ray.errors import ConfigError
from r1ray.rewards.base import Ask, Reward, Sample
from r1ray.rewards.learned.conversation import Part, conversation_ids, judged_part
from r1ray.rewards.learned.serving import ModelServer, ModelSettings, load_pretrained
from r1ray.types import Message
from r1ray.util.files import read_json

if TYPE_CHECKING:
    from r1ray.data.tokenizer import Tokenizer

Kind = Literal["pairwise", "pointwise"]
"""pairwise: trained on which of two responses is better; pointwise: on whether a response is safe."""

REPORT = "reward_report.json"
"""File that training writes into the model's folder: what the model was trained for, and its accuracy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReward(ModelSettings, Reward):
    """The score of a reward model, at least `floor` (pairwise), or the probability that a response is safe (pointwise).

    The model is a sequence classification with one label. An empty summary gets the lowest value, `floor` or 0,
    without the model, which was never trained on one.
    """

    kind: Kind = "pairwise"
    judge: Part = "summary"
    floor: float = -10.0  # of a pairwise score
    server: Server

    def __post_init__(self) -> None:
        self.check_limits("model")
        if not math.isfinite(self.floor):
            raise ConfigError(f"model: floor: expected a finite number, got {self.floor}")

    def __call__(self, sample: Sample) -> float | Ask:
        """See Reward. The question to the model; its lowest value at once if there is nothing to judge."""
        judged = judged_part(sample.response, self.judge, opened=sample.opened)
        if not judged and self.judge == "summary":
            return self.floor if self.kind == "pairwise" else 0.0
        return Ask(function=lambda: self._value(sample.messages, judged))

    def check(self) -> None:
        """See Reward. Does not load the model: another process may do the scoring."""
        file = Path(self.path) / "config.json"
        if not file.is_file():
            raise ConfigError(f"model: path = {self.path} is not a model folder, it has no config.json")
        config = read_json(file)
        architecture = ", ".join(config.get("architectures") or ["nothing"])
        if "ForSequenceClassification" not in architecture or len(config.get("id2label", {})) != 1:
            raise ConfigError(
                f"model: path = {self.path} holds {architecture}: a reward model is a ...ForSequenceClassification "
                "with one label, as `r1ray reward-model` writes"
            )
        if (file.parent / REPORT).is_file():
            report = read_json(file.parent / REPORT)
            for key, value in (("kind", self.kind), ("judge", self.judge)):
                if report.get(key) != value:
                    raise ConfigError(
                        f"model: {self.path} was trained with {key} = {report.get(key)}, the reward says {value}"
                    )

    def _value(self, messages: tuple[Message, ...], judged: str) -> float:
        ids = conversation_ids(self.server.tokenizer(self), messages, judged, self.max_length)
        score = self.server.score(self, ids)
        if self.kind == "pairwise":
            return max(score, self.floor)
        return 1.0 / (1.0 + math.exp(-score)) if score > -700.0 else 0.0


class Server(ModelServer[list[int]]):
    """One reward model, shared by all threads of a scorer."""

    def load(self, settings: ModelSettings) -> tuple[Tokenizer, Any]:
        """See ModelServer."""
        from transformers import AutoModelForSequenceClassification

        tokenizer, model = load_pretrained(AutoModelForSequenceClassification, settings, "reward model")
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.eos_token_id
        return tokenizer, model

    def scores(self, model: Any, rows: list[list[int]]) -> list[float]:
        """See ModelServer."""
        return scores_of(model, rows)


def scores_of(model: Any, rows: list[list[int]]) -> list[float]:
    """One score for each row of token ids, in one forward pass."""
    import torch

    longest, pad = max(map(len, rows)), model.config.pad_token_id
    padded = torch.tensor([ids + [pad] * (longest - len(ids)) for ids in rows], device=model.device)
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in rows], device=model.device)
    with torch.inference_mode():
        scores: list[float] = model(input_ids=padded, attention_mask=mask).logits[:, 0].float().tolist()
    return scores
