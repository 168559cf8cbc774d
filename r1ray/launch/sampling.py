"""Composition root of sampling jobs (`r1ray sample`, `r1ray eval`): rollout and reward workers on Ray, no learner, no queue."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import ray

from r1ray.config.checks import Use
from r1ray.config.load import LoadedConfig
from r1ray.config.schema import Config
from r1ray.control.job_progress import JobStatusWriter
from r1ray.control.stop import Stop
from r1ray.data.vocab import vocab_hash
from r1ray.launch.cluster import Cluster
from r1ray.launch.signals import stop_on_signals
from r1ray.launch.supervision import managed_actors, rollout_fleet
from r1ray.run.folder import RunFolder
from r1ray.run.metrics import MetricsWriter
from r1ray.run.notices import notices_to
from r1ray.run.view import make_view
from r1ray.sampling.job import JobParts, SamplingJob, Wanted
from r1ray.types import Sampling
from r1ray.util.machine import this_machine
from r1ray.util.versions import installed_versions

UNDER_WAY = "the prompts under way"


def training_samples(config: Config) -> list[Wanted]:
    """What `r1ray sample` wants: `rollout.group_size` samples of every prompt of `data.train`."""
    rollout = config.rollout
    sampling = Sampling(
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        max_new_tokens=rollout.max_new_tokens,
        seed=config.run.seed,
    )
    return [Wanted(source=s.name, samples=rollout.group_size, sampling=sampling) for s in config.data.train]


def run_sampling(
    loaded: LoadedConfig,
    folder: RunFolder,
    samples: str = "samples",
    *,
    wanted: Sequence[Wanted] | None = None,
    use: Use = "sample",
) -> bool:
    """Fill `samples`/ in `folder`, whose lock the caller holds; whether everything is there now. Raises R1RayError.

    False: a signal asked to stop. `wanted` None: what `r1ray sample` wants.
    """
    config = loaded.config
    cluster = Cluster(
        config=config,
        model_path=config.model.path,
        vocab_hash=vocab_hash(Path(config.model.path)),
        run_dir=str(folder.path),
        run_id=folder.identity().run_id,
    )
    with (
        make_view(total_steps=0) as view,
        MetricsWriter(folder.path, tensorboard=False, on_event=notices_to(view)) as writer,
    ):
        machine, versions = asdict(this_machine()), installed_versions()
        writer.event("started", pid=os.getpid(), machine=machine, versions=versions)
        stop = Stop(config.deadlines.shutdown_s)
        stop_on_signals(stop, view, UNDER_WAY)
        folder.clear_requests()  # of an earlier driver
        view.phase("Ray", 0, 1)
        cluster.connect(use)
        view.phase("Ray", 1, 1)
        stop_on_signals(stop, view, UNDER_WAY)  # again: Ray's C++ part has put handlers of its own around them
        told = JobStatusWriter(folder, view, kind=use, phase="sampling", unit="prompts")
        parts = JobParts(
            # Nobody leases here, so nothing has to be handed back for a worker that dies.
            fleet=rollout_fleet(cluster, use, release=lambda name, drained: None, on_event=writer.event),
            managed=managed_actors(cluster, writer.event),
            folder=folder,
            samples=folder.path / samples,
            writer=writer,
            stop=stop,
            tell=told.report,
        )
        job = SamplingJob(config, training_samples(config) if wanted is None else wanted, parts)
        return _run(job, told, writer)


def _run(job: SamplingJob, told: JobStatusWriter, writer: MetricsWriter) -> bool:
    state, message = "failed", ""
    try:
        finished = job.run()
        state = "finished" if finished else "interrupted"
        return finished
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
