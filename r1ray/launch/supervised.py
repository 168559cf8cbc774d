"""Composition root of `r1ray sft` and `r1ray reward-model`: learner ranks on Ray, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from r1ray.config.load import LoadedConfig
from r1ray.config.rules import SupervisedUse
from r1ray.control.finetuning import Finetuning
from r1ray.control.job_progress import JobStatusWriter
from r1ray.control.learners import LearnerGroup
from r1ray.launch.session import open_session
from r1ray.run.folder import RunFolder

PHASES: dict[SupervisedUse, str] = {"sft": "supervised fine-tuning", "reward-model": "reward-model training"}
ACCURACY: dict[SupervisedUse, str] = {"sft": "token accuracy", "reward-model": "accuracy"}


def train_supervised(
    loaded: LoadedConfig, folder: RunFolder, data: Mapping[str, Any], use: SupervisedUse, *, resume: bool
) -> int:
    """Train in `folder`, whose lock the caller holds, on the rows that `check_start` found. Returns the exit code."""
    with open_session(loaded, folder, use, resume=resume) as session:
        view, status = session.view, JobStatusWriter(folder, session.view, kind=use, phase=PHASES[use])
        training = Finetuning(
            loaded.config,
            use=use,
            data=data,
            learners=lambda tick: LearnerGroup(
                loaded.config,
                reserve=partial(session.cluster.supervised, use),
                tick=tick,
                on_event=session.writer.event,
            ),
            folder=folder,
            writer=session.writer,
            stop=session.stop,
            commands=session.commands,
            report=status.report,
        )

        def ended(state: str, message: str) -> None:
            status.end(state, message)
            view.line(f"{state}: step {status.done} of {status.total}{_last(status.figures, use)}")

        session.run(training.run, ended)
    return 0


def _last(metrics: Mapping[str, Any], use: SupervisedUse) -> str:
    """Loss and accuracy of the last step, if there was one."""
    section, name = use.replace("-", "_"), ACCURACY[use]
    if f"{section}/loss" not in metrics:
        return ""
    loss, accuracy = metrics[f"{section}/loss"], metrics[f"{section}/{name.replace(' ', '_')}"]
    return f", loss {loss:.3f}, {name} {accuracy:.3f}"
