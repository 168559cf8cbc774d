"""Composition root of `r1ray sft` and `r1ray reward-model`: learner ranks on Ray, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import ray

from r1ray.config.load import LoadedConfig
from r1ray.config.rules import SupervisedUse
from r1ray.control.finetuning import Finetuning
from r1ray.control.job_progress import JobStatusWriter
from r1ray.control.learners import LearnerGroup
from r1ray.control.stop import Stop
from r1ray.data.vocab import vocab_hash
from r1ray.launch.cluster import Cluster
from r1ray.launch.signals import stop_on_signals
from r1ray.run.folder import RunFolder
from r1ray.run.metrics import MetricsWriter
from r1ray.run.notices import notices_to
from r1ray.run.view import View, make_view
from r1ray.util.machine import this_machine
from r1ray.util.versions import installed_versions

PHASES: dict[SupervisedUse, str] = {"sft": "supervised fine-tuning", "reward-model": "reward-model training"}
ACCURACY: dict[SupervisedUse, str] = {"sft": "token accuracy", "reward-model": "accuracy"}


def train_supervised(
    loaded: LoadedConfig, folder: RunFolder, data: Mapping[str, Any], use: SupervisedUse, *, resume: bool
) -> int:
    """Train in `folder`, whose lock the caller holds, on the rows that `check_start` found; the exit code."""
    config = loaded.config
    cluster = Cluster(
        config=config,
        model_path=config.model.path,
        vocab_hash=vocab_hash(Path(config.model.path)),
        run_dir=str(folder.path),
        run_id=folder.identity().run_id,
    )
    logging = config.logging
    with (
        make_view(total_steps=0) as view,
        MetricsWriter(
            folder.path,
            tensorboard=logging.tensorboard,
            wandb_project=logging.wandb_project,
            on_event=notices_to(view),
        ) as writer,
    ):
        machine, versions = asdict(this_machine()), installed_versions()
        writer.event("started", resume=resume, pid=os.getpid(), machine=machine, versions=versions)
        stop = Stop(config.deadlines.shutdown_s)
        stop_on_signals(stop, view)
        view.phase("Ray", 0, 1)
        cluster.connect(use)
        view.phase("Ray", 1, 1)
        stop_on_signals(stop, view)  # again: Ray's C++ part has put handlers of its own around them
        _run(cluster, folder, data, use, writer, view, stop)
    return 0


def _run(
    cluster: Cluster,
    folder: RunFolder,
    data: Mapping[str, Any],
    use: SupervisedUse,
    writer: MetricsWriter,
    view: View,
    stop: Stop,
) -> None:
    config, told = cluster.config, JobStatusWriter(folder, view, kind=use, phase=PHASES[use])
    state, message = "failed", ""
    try:
        training = Finetuning(
            config,
            use=use,
            data=data,
            learners=lambda tick: LearnerGroup(config, spawn=partial(cluster.supervised, use), tick=tick),
            folder=folder,
            writer=writer,
            stop=stop,
            report=told.report,
        )
        state = "finished" if training.run() else "interrupted"
    except KeyboardInterrupt:
        writer.event("interrupted", reason="at once, by a second signal")
        state, message = "interrupted", "at once"
        raise
    except BaseException as e:
        writer.event("failed", error=type(e).__name__, message=str(e))
        message = f"{type(e).__name__}: {e}"
        raise
    finally:
        told.end(state, message)
        ray.shutdown()
        view.line(f"{state}: step {told.done} of {told.total}{_last(told.figures, use)}")
    if state == "finished":
        writer.event(state)


def _last(metrics: Mapping[str, Any], use: SupervisedUse) -> str:
    """Loss and accuracy of the last step, if there was one."""
    section, name = use.replace("-", "_"), ACCURACY[use]
    if f"{section}/loss" not in metrics:
        return ""
    loss, accuracy = metrics[f"{section}/loss"], metrics[f"{section}/{name.replace(' ', '_')}"]
    return f", loss {loss:.3f}, {name} {accuracy:.3f}"
