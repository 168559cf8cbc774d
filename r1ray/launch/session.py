"""What every kind of run shares: view, records, signals and Ray before its job, the outcome and Ray's end after it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from r1ray.config.load import LoadedConfig
from r1ray.config.uses import Use, processes
from r1ray.control.commands import Commands
from r1ray.control.stop import Stop
from r1ray.data.vocab import vocab_hash
from r1ray.errors import InfrastructureError
from r1ray.launch.cluster import Cluster
from r1ray.launch.ray_session import disconnect
from r1ray.launch.signals import stop_on_signals
from r1ray.run.driver_log import LoggedView, log_view
from r1ray.run.folder import RunFolder
from r1ray.run.json_view import JsonView
from r1ray.run.metrics import EVENTS, MetricsWriter
from r1ray.run.notices import notices_to
from r1ray.run.requests import remove_old
from r1ray.run.view import RAY_PHASE, View, make_view
from r1ray.util.machine import this_machine
from r1ray.util.versions import installed_versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a started run works with. Producer: `open_session`."""

    cluster: Cluster  # connected
    folder: RunFolder
    view: View
    writer: MetricsWriter
    stop: Stop  # requested by the first signal or by `r1ray stop`
    commands: Commands

    def run(self, job: Callable[[], bool], ended: Callable[[str, str], None]) -> bool:
        """Run `job`, record its outcome and end Ray. Returns what `job` returns: whether the run is finished.

        `ended` gets the state (finished, interrupted, failed) and a message while the handles of the actors still
        exist. Whatever `job` raises is recorded and raised again.
        """
        state, message = "failed", ""
        try:
            finished = job()
            state = "finished" if finished else "interrupted"
        except KeyboardInterrupt:
            self.writer.event("interrupted", reason="at once, by request")
            state, message = "interrupted", "at once"
            raise
        except BaseException as e:
            self.writer.event("failed", error=type(e).__name__, message=str(e))
            message = f"{type(e).__name__}: {e}"
            raise
        finally:
            ended(state, message)
            disconnect(
                partial(_failed, self.writer)
            )  # before the handles go: actors would end one by one, and complain
        if finished:
            self.writer.event("finished")
        return finished


def _failed(writer: MetricsWriter, message: str) -> None:
    writer.event("failed", error=InfrastructureError.__name__, message=message)


def _view(folder: RunFolder, total_steps: int, *, json_of: str | None) -> View:
    """The view on the terminal and in logs/driver.log; with JSON lines if `json_of` is the id of the run."""
    shown = make_view(total_steps=total_steps) if json_of is None else JsonView(json_of, total_steps)
    return LoggedView(shown, log_view(folder.logs / "driver.log", total_steps=total_steps, run_id=json_of))


@contextmanager
def open_session(
    loaded: LoadedConfig,
    folder: RunFolder,
    use: Use,
    *,
    total_steps: int = 0,
    after: str = "this step, with a checkpoint",
    **details: Any,
) -> Iterator[Session]:
    """Start the run in `folder`, whose lock the caller holds, up to a connected Ray.

    `after`: what the first signal waits for. `details` go into the event `started`. A start that fails before that
    event leaves the folder as if it had not been tried, so it can be repeated.
    """
    config, logging = loaded.config, loaded.config.logging
    begun = (folder.path / EVENTS).exists()
    trains = "learner" in processes(config, use)
    run_id = folder.identity().run_id
    with _view(folder, total_steps, json_of=run_id if logging.json else None) as view:
        try:
            cluster = Cluster(
                config=config,
                model_path=config.model.path,
                vocab_hash=vocab_hash(Path(config.model.path)),
                run_dir=str(folder.path),
                run_id=run_id,
            )
            writer = MetricsWriter(
                folder.path,
                tensorboard=trains and logging.tensorboard,
                wandb_project=logging.wandb_project if trains else None,
                on_event=notices_to(view),
            )
        except BaseException:
            if not begun:
                folder.abandon()
            raise
        with writer:
            machine, versions = asdict(this_machine()), installed_versions()
            writer.event("started", pid=os.getpid(), machine=machine, versions=versions, **details)
            stop = Stop(config.deadlines.shutdown_s)
            stop_on_signals(stop, view, after)
            remove_old(folder)
            view.phase(RAY_PHASE, 0, 1)
            try:
                cluster.connect(
                    use, lambda text: writer.event("failed", error=InfrastructureError.__name__, message=text)
                )
            except BaseException as e:
                writer.event("failed", error=type(e).__name__, message=str(e))
                raise
            view.phase(RAY_PHASE, 1, 1)
            stop_on_signals(stop, view, after)  # again: Ray's C++ part has put handlers of its own around them
            commands = Commands(folder, stop=stop, on_event=writer.event)
            yield Session(cluster=cluster, folder=folder, view=view, writer=writer, stop=stop, commands=commands)
