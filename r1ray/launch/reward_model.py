"""Composition root of `r1ray reward-model train`: ranks on Ray, one device each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from learner.preference.train import Settings
from r1ray.config.schema import Config
from r1ray.control.learners import LearnerGroup
from r1ray.errors import ConfigError
from r1ray.launch.cluster import Cluster, check_reachable
from r1ray.modelfolder import read_shape


def placement(ranks: int, num_gpus: float, ray_address: str | None, deadline_s: float | None) -> Config:
    """How the training is placed and how long each of its calls may take; `num_gpus` is of each rank, null are the defaults."""
    config = Config()
    config.learner.ranks, config.learner.num_gpus, config.ray.address = ranks, num_gpus, ray_address
    if deadline_s is not None:
        d = config.deadlines
        d.actor_start_s = d.step_s = d.evaluation_s = d.checkpoint_s = deadline_s
    return config


def train_reward_model(
    data: Path,
    *,
    base: Path,
    out: Path,
    settings: Settings,
    config: Config,
    progress: Callable[[int, int, float], None],
) -> dict[str, Any]:
    """Train the model of the folder `base` on `data` and write it to `out` with its report, which is returned.

    `config` says where (see `placement`); `progress` gets (steps done, of how many, mean loss). Raises ConfigError for data or
    a model or a Ray cluster that cannot be used, NumericError where a gradient is not finite, and LearnerLost where a rank dies;
    nothing is written then.
    """
    if quantized := read_shape(base).quantized:
        raise ConfigError(
            f"--model {base} has weights that are quantized ({quantized}): convert them to bfloat16 first"
        )
    check_reachable(config.ray.address)
    deadlines = config.deadlines
    data, base, out = data.absolute(), base.absolute(), out.absolute()
    with tempfile.TemporaryDirectory(prefix="r1ray-reward-model-") as logs:
        cluster = Cluster(config=config, model_path=str(base), vocab_hash="", run_dir=logs, run_id="")
        group = LearnerGroup(
            config, spawn=lambda rank: cluster.reward_model(rank, data, base, settings), tick=lambda: None
        )
        try:
            cluster.connect("sft")
            steps = group.start()[0]["steps"]
            for step in range(steps):
                what = f"train step {step} (deadlines.step_s)"
                progress(step + 1, steps, group.call("train_step", deadline_s=deadlines.step_s, what=what)[0])
            report: dict[str, Any] = group.call(
                "report", deadline_s=deadlines.evaluation_s, what="score the held-out rows (deadlines.evaluation_s)"
            )[0]
            what = "write the model (deadlines.checkpoint_s)"
            group.call("write", str(out), report, deadline_s=deadlines.checkpoint_s, what=what)
        finally:
            group.kill()
            ray.shutdown()
    return report
