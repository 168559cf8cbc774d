"""Composition root of `r1ray sample` and `r1ray eval`: rollout and reward workers on Ray, without learner and queue."""

from __future__ import annotations

from collections.abc import Sequence

from r1ray.config.load import LoadedConfig
from r1ray.config.schema import Config
from r1ray.config.uses import Use
from r1ray.control.job_progress import JobStatusWriter
from r1ray.launch.session import open_session
from r1ray.launch.supervision import managed_actors, rollout_fleet
from r1ray.run.folder import RunFolder
from r1ray.sampling.job import JobParts, SamplingJob, Wanted
from r1ray.types import Sampling

UNDER_WAY = "the prompts under way"


def training_samples(config: Config) -> list[Wanted]:
    """Return the samples that `r1ray sample` takes: `rollout.group_size` of every prompt of `data.train`."""
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
    """Fill `samples`/ in `folder`, whose lock the caller holds. Returns False if a signal stopped it before the end.

    `wanted` None: what `r1ray sample` wants. Raises R1RayError.
    """
    config = loaded.config
    with open_session(loaded, folder, use, after=UNDER_WAY) as session:
        writer = session.writer
        status = JobStatusWriter(folder, session.view, kind=use, phase="sampling", unit="prompts")
        parts = JobParts(
            # No worker leases here, so nothing has to be handed back for one that dies.
            fleet=rollout_fleet(session.cluster, use, release=lambda name, drained: None, on_event=writer.event),
            managed=managed_actors(session.cluster, writer.event),
            folder=folder,
            samples=folder.path / samples,
            writer=writer,
            stop=session.stop,
            commands=session.commands,
            tell=status.report,
        )
        job = SamplingJob(config, training_samples(config) if wanted is None else wanted, parts)
        return session.run(job.run, status.end)
