"""Check where the ledger of a run would lie, and describe it; the queue checks its own machine again at its start."""

from __future__ import annotations

from pathlib import Path

from r1ray.config.problems import Problem, problem
from r1ray.config.schema import Config
from r1ray.errors import ConfigError
from r1ray.ledger.provide import newest_ledger
from r1ray.ledger.storage import COPY_NAME, check_file
from r1ray.run.folder import RunFolder
from r1ray.run.ledger import LedgerPlace, network_problem
from r1ray.util.files import refuse_unwritable
from r1ray.util.filesystems import mount_of
from r1ray.util.formatting import duration


def ledger_problems(config: Config) -> list[Problem]:
    """Find a ledger that would be on a network file system, or in a folder that this user may not write.

    With `ray.queue_resources` the queue may run on another machine: then it looks itself, before it creates anything.
    """
    if config.ray.queue_resources:
        return []
    run = config.run
    key, folder = ("run.dir", run.dir) if run.ledger_dir is None else ("run.ledger_dir", run.ledger_dir)
    found = []
    network = network_problem(Path(folder))
    if network is not None and not run.ledger_on_network:
        found.append(problem(config, key, *network))
    if run.ledger_dir is not None:
        try:
            refuse_unwritable(Path(folder).expanduser())
        except ConfigError as e:
            found.append(problem(config, key, str(e), "give a folder of this user on a local disk"))
    return found


def describe_ledger(config: Config) -> str:
    """Where the ledger will be, on which file system, and when it is copied."""
    run = config.run
    folder = Path(run.dir if run.ledger_dir is None else run.ledger_dir)
    if config.ray.queue_resources:
        where = f"{folder} on the queue's machine (ray.queue_resources), which checks its file system at the start"
    else:
        mount = mount_of(folder)
        kind = "an unknown file system" if mount is None else f"{mount}"
        if mount is not None and mount.volatile:
            kind += ", which is lost with this machine's memory or container"
        if mount is not None and mount.network:
            kind += ", a network file system (run.ledger_on_network)"
        where = f"{folder}, on {kind}"
    copies = (
        ""
        if run.ledger_dir is None
        else (
            f"; copied to {Path(run.dir) / COPY_NAME} at each checkpoint and every {duration(run.ledger_copy_every_s)}"
        )
    )
    return f"Ledger: in {where}{copies}."


def check_ledger(config: Config, folder: RunFolder) -> None:
    """Check the ledger of a run to resume; writes nothing.

    Raises IntegrityError if it is of another run, or missing although the run has checkpoints. A run that was killed
    before it had one gets a new one.
    """
    run_id = folder.identity().run_id
    if config.ray.queue_resources and config.run.ledger_dir is not None:  # perhaps on another machine
        copy = folder.path / COPY_NAME
        if copy.exists():
            check_file(copy, run_id)
        return
    newest_ledger(LedgerPlace.of(config.run, folder.path, run_id).expanded().file, folder.path, run_id)
