"""Fluency: how likely a language model finds a response, by default the model that training started from.

A policy can satisfy a verifier with text that nobody would write. Under the base model such text has a high perplexity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1ray.errors import ConfigError
from r1ray.rewards.base import Ask, Reward, Sample
from r1ray.rewards.learned.conversation import conversation_ids
from r1ray.rewards.learned.serving import ModelServer, ModelSettings, load_pretrained
from r1ray.util.files import read_json

if TYPE_CHECKING:
    from r1ray.data.tokenizer import Tokenizer

Scored = tuple[list[int], int]
"""Token ids of prompt and response, and the number of those that belong to the response."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fluency(ModelSettings, Reward):
    """Mean log-probability per token of the response, in nats: minus the logarithm of its perplexity.

    The token that ended the response counts, so a text that stops in the middle of a sentence is not fluent. An empty
    response, of no token, gets `floor`; no value is below it.
    """

    floor: float = -20.0
    server: LanguageModel

    def __post_init__(self) -> None:
        self.check_limits("fluency")
        if not (math.isfinite(self.floor) and self.floor < 0):
            raise ConfigError(f"fluency: floor: expected a number < 0, got {self.floor}")

    def __call__(self, sample: Sample) -> float | Ask:
        """See Reward. The question to the model; `floor` for an empty response."""
        return Ask(function=lambda: self._value(sample)) if sample.response else self.floor

    def check(self) -> None:
        """See Reward. Does not load the model."""
        file = Path(self.path) / "config.json"
        if not file.is_file():
            raise ConfigError(f"fluency: path = {self.path} is not a model folder, it has no config.json")
        architecture = ", ".join(read_json(file).get("architectures") or ["nothing"])
        if "ForCausalLM" not in architecture:
            raise ConfigError(f"fluency: path = {self.path} holds {architecture}: expected a ...ForCausalLM")

    def _value(self, sample: Sample) -> float:
        tokenizer = self.server.tokenizer(self)
        prompt = conversation_ids(tokenizer, sample.messages, "", self.max_length)
        ids = conversation_ids(tokenizer, sample.messages, sample.response, self.max_length)
        if sample.finish_reason == "stop" and tokenizer.eos_token_id is not None:
            ids.append(tokenizer.eos_token_id)
        return max(self.server.score(self, (ids, len(ids) - len(prompt))), self.floor)


class LanguageModel(ModelServer[Scored]):
    """One language model, shared by all threads of a scorer."""

    def load(self, settings: ModelSettings) -> tuple[Tokenizer, Any]:
        """See ModelServer."""
        from transformers import AutoModelForCausalLM

        return load_pretrained(AutoModelForCausalLM, settings, "language model")

    def scores(self, model: Any, rows: list[Scored]) -> list[float]:
        """See ModelServer."""
        return mean_logprobs(model, rows)


def mean_logprobs(model: Any, rows: list[Scored]) -> list[float]:
    """Mean log-probability of the response's tokens of each row, in nats, in one forward pass.

    Rows are padded on the left, so that all responses end at the last position, and logits are computed only there.
    """
    import torch

    longest, kept = max(len(ids) for ids, _ in rows), max(count for _, count in rows)
    before = [longest - len(ids) for ids, _ in rows]
    padded = torch.tensor([[0] * n + ids for n, (ids, _) in zip(before, rows, strict=True)], device=model.device)
    mask = torch.tensor([[0] * n + [1] * (longest - n) for n in before], device=model.device)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    with torch.inference_mode():
        logits = model(
            input_ids=padded, attention_mask=mask, position_ids=positions, logits_to_keep=kept + 1, use_cache=False
        ).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), padded[:, -kept:].flatten(), reduction="none"
        ).view(len(rows), kept)
    return [-float(loss[i, kept - count :].mean()) for i, (_, count) in enumerate(rows)]
