"""Models of rewards in the memory plan of each reward worker, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1ray.config.schema import Config, RewardConfig
from r1ray.errors import ConfigError
from r1ray.preflight.placement import make_plan
from r1ray.preflight.reward_memory import LIBRARIES_BYTES
from r1ray.util.machine import GIB
from tests.unit.model_folder import write_model
from tests.unit.preflight.test_placement import LAPTOP, NODE, SMALL, tiny

LIBRARIES = "libraries of reward models"


def with_reward(folder: Path, name: str = "fluency", **params: Any) -> Config:
    config = tiny("rollout.max_new_tokens=64", "evaluation.max_new_tokens=90")
    config.rewards.append(RewardConfig(name=name, weight=0.0, params={"path": str(folder), **params}))
    return config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The sizes of SmolLM2-135M."""
    return write_model(tmp_path / "lm", shapes={"w": [134_515_008]}, vocab_size=49_152)


def test_a_language_model_and_the_logits_of_a_batch_are_in_each_reward_worker(folder: Path) -> None:
    config = with_reward(folder)
    role, plain = (make_plan(c, SMALL, LAPTOP).role("reward worker") for c in (config, tiny()))
    logits = 8 * 91 * 49_152 * 12
    assert {name: role.host[name] for name in role.host.keys() - plain.host.keys()} == {
        LIBRARIES: LIBRARIES_BYTES,
        "model of fluency": 4 * 134_515_008,
        "logits of fluency": logits,
    }
    config.reward_worker.workers = 20
    (refusal,) = make_plan(config, SMALL, LAPTOP).problems
    assert "most of it: 20 reward worker" in refusal.message


def test_a_reward_model_of_half_the_width_has_no_logits(folder: Path) -> None:
    role = make_plan(with_reward(folder, "model/helpful", dtype="bfloat16"), SMALL, LAPTOP).role("reward worker")
    assert role.host["model of model/helpful"] == 2 * 134_515_008
    assert not [item for item in role.host if item.startswith("logits")]


def test_models_are_on_the_gpu_of_a_worker_that_has_one(folder: Path) -> None:
    config = with_reward(folder)
    config.reward_worker.num_gpus = 0.5
    role = make_plan(config, SMALL, NODE).role("reward worker")
    assert role.device.keys() == {"model of fluency", "logits of fluency"}
    assert LIBRARIES in role.host
    small_gpu = replace(NODE, gpu_memory_bytes=(GIB // 2,) * 16)
    assert "rewards" in {p.key for p in make_plan(config, SMALL, small_gpu).problems}
    config.rewards[-1].params["device"] = "cpu"
    assert make_plan(config, SMALL, NODE).role("reward worker").device == {}


def test_the_model_of_another_machine_is_not_counted_and_one_without_weights_is_refused(
    tmp_path: Path, folder: Path
) -> None:
    assert LIBRARIES not in make_plan(with_reward(tmp_path / "none"), SMALL, LAPTOP).role("reward worker").host
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ConfigError, match=r"weights in .* cannot be read"):
        make_plan(with_reward(folder), SMALL, LAPTOP)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="has no weights"):
        make_plan(with_reward(folder), SMALL, LAPTOP)
