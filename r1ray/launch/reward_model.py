"""Composition root of `r1ray reward-model train`: ranks on Ray, one device each.

OUT                             the model, written last and at once
OUT.checkpoints/training.json   what is trained on what; its presence says that a training was begun
                step_000020/    as in docs/learner.md; removed when the model is written
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray

from learner.preference.train import Settings
from r1ray.config.schema import Config
from r1ray.control.learners import LearnerGroup
from r1ray.errors import ConfigError
from r1ray.launch.cluster import Cluster
from r1ray.launch.processes import RewardModelProcess
from r1ray.launch.ray_session import look_at
from r1ray.models.folder import read_shape
from r1ray.recipe.status import digest
from r1ray.rewards.learned.preference import REPORT
from r1ray.run.checkpoints import list_checkpoints
from r1ray.util.files import read_json, write_atomic

TRAINING = "training.json"
PLACED = ("ranks", "zero_stage")
"""Settings that a resume may change: another division of the same rows is the same training, up to rounding."""


def placement(
    ranks: int, num_gpus: float, ray_address: str | None, deadline_s: float | None, checkpoint_steps: int | None
) -> Config:
    """How the training is placed, how long each of its calls may take, and how often it is saved; null are the defaults.

    `num_gpus` is of each rank.
    """
    config = Config()
    if checkpoint_steps is not None:
        config.checkpoint.every_steps = checkpoint_steps
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
    resume: bool,
    progress: Callable[[int, int, float], None],
) -> dict[str, Any]:
    """Train the model of the folder `base` on `data` and write it to `out` with its report, which is returned.

    `config` says where (see `placement`); `progress` gets (steps done, of how many, mean loss). Raises ConfigError for data or
    a model or a Ray cluster that cannot be used, NumericError where a gradient is not finite, and LearnerLost where a rank dies;
    no model is written then. With `resume` it goes on from its newest checkpoint; a training of something else is refused.
    """
    if quantized := read_shape(base).quantized:
        raise ConfigError(
            f"--model {base} has weights that are quantized ({quantized}): convert them to bfloat16 first"
        )
    look_at(config.ray.address)
    deadlines = config.deadlines
    data, base, out = data.absolute(), base.absolute(), out.absolute()
    checkpoints, run_id = _begin(out, _identity(data, base, settings), resume)
    if out.exists():  # it was killed behind its last step
        _clear(checkpoints)
        return read_json(out / REPORT)
    with tempfile.TemporaryDirectory(prefix="r1ray-reward-model-") as logs:
        cluster = Cluster(config=config, model_path=str(base), vocab_hash="", run_dir=logs, run_id="")
        group = LearnerGroup(
            config, spawn=lambda rank: cluster.reward_model(rank, data, base, settings), tick=lambda: None
        )
        try:
            cluster.connect("sft")
            steps = group.start()[0]["steps"]
            what, saving_s = "load or save a checkpoint (deadlines.checkpoint_s)", deadlines.checkpoint_s
            done = group.call(
                lambda rank: rank.start(RewardModelProcess.load, str(checkpoints), run_id),
                deadline_s=saving_s,
                what=what,
            )[0]
            for step in range(done, steps):
                training = f"train step {step} (deadlines.step_s)"
                loss = group.call(
                    lambda rank: rank.start(RewardModelProcess.train_step), deadline_s=deadlines.step_s, what=training
                )[0]
                progress(step + 1, steps, loss)
                if (step + 1) % config.checkpoint.every_steps == 0:
                    group.call(
                        lambda rank: rank.start(RewardModelProcess.save, str(checkpoints), run_id),
                        deadline_s=saving_s,
                        what=what,
                    )
            report = group.call(
                lambda rank: rank.start(RewardModelProcess.report),
                deadline_s=deadlines.evaluation_s,
                what="score the held-out rows (deadlines.evaluation_s)",
            )[0]
            what = "write the model (deadlines.checkpoint_s)"
            group.call(
                lambda rank: rank.start(RewardModelProcess.write, str(out), report),
                deadline_s=deadlines.checkpoint_s,
                what=what,
            )
        finally:
            group.kill()
            ray.shutdown()
    _clear(checkpoints)
    return report


def _identity(data: Path, base: Path, settings: Settings) -> dict[str, Any]:
    """What makes it the same training again."""
    plain = {key: value for key, value in asdict(settings).items() if key not in PLACED}
    return {"data": digest(data), "model": digest(base), **plain}


def _begin(out: Path, identity: dict[str, Any], resume: bool) -> tuple[Path, str]:
    """The folder of the checkpoints and the id of the training. Raises ConfigError where another one was begun there."""
    checkpoints = out.with_name(f"{out.name}.checkpoints")
    file = checkpoints / TRAINING
    if resume and file.exists():
        begun = read_json(file)
        if changed := [key for key in identity if begun.get(key) != identity[key]]:
            raise ConfigError(f"--resume: {', '.join(changed)} changed since {out} was begun: go on with the same")
    elif resume:
        raise ConfigError(f"--resume: nothing was begun there, {file} is missing")
    elif list_checkpoints(checkpoints):
        raise ConfigError(f"{checkpoints} holds an unfinished training: go on with --resume, or remove it")
    else:
        checkpoints.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(identity, indent=1).encode())
    return checkpoints, hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _clear(checkpoints: Path) -> None:
    """Remove what only an unfinished training needs."""
    for _, folder in list_checkpoints(checkpoints):
        shutil.rmtree(folder)
