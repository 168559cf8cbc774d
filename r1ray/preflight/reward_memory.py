"""Memory of the models that rewards load into each reward worker. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from r1ray.config.lengths import longest_completion
from r1ray.config.schema import Config
from r1ray.models.folder import stored_values
from r1ray.preflight.memory import BYTES, Items
from r1ray.rewards.learned.fluency import Fluency
from r1ray.rewards.learned.preference import ModelReward
from r1ray.rewards.registry import build, kind_of
from r1ray.util.files import read_json
from r1ray.util.machine import GIB

LIBRARIES_BYTES = 0.25 * GIB
"""torch and transformers, which a reward worker without a model does not import."""

_LOGIT_BYTES = {"float32": 12, "bfloat16": 10}
"""Of each element of a batch's logits: as computed, a float32 copy, and their log-softmax (fluency.py)."""


def reward_model_bytes(config: Config) -> tuple[Items, Items]:
    """Return the memory of all models of rewards in one worker: (on the worker's device, in host memory in any case).

    A folder that this machine does not have is left out: the reward's own check refuses it if it is needed.
    """
    device: Items = {}
    host: Items = {}
    for each in config.rewards:
        if kind_of(each.name) not in ("model", "fluency"):
            continue
        reward = build(each.name, each.params)
        assert isinstance(reward, ModelReward | Fluency)
        folder = Path(reward.path)
        if not (folder / "config.json").is_file():
            continue
        host["libraries of reward models"] = LIBRARIES_BYTES
        items = device if reward.device != "cpu" else host
        items[f"model of {each.name}"] = float(stored_values(folder) * BYTES[reward.dtype])
        if isinstance(reward, Fluency):
            items[f"logits of {each.name}"] = _logit_bytes(config, reward, folder)
    return device, host


def _logit_bytes(config: Config, reward: Fluency, folder: Path) -> float:
    """Logits of a batch of the longest responses."""
    longest = max(longest_completion(config), config.evaluation.max_new_tokens or 0)
    tokens = min(longest, reward.max_length) + 1
    vocabulary = int(read_json(folder / "config.json")["vocab_size"])
    return float(reward.batch_size * tokens * vocabulary * _LOGIT_BYTES[reward.dtype])
