"""The actors' processes: what is the same for all of them, and the two that need Ray to be built."""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import ray

from actors.queue import QueueOwner
from actors.remote import QUEUE, Asker, RewardActor, RolloutActor, place
from learner.actor import LearnerActor
from r1ray.config.schema import Config

FETCH_GROUPS = 64
"""Payloads of one answer of the queue."""

PY_SPY_S = 15.0


def _begin(log: Path) -> None:
    """Send all that this process prints to `log`, where its node has the run folder, and its stacks there on SIGUSR1."""
    if log.parent.is_dir():  # on a node without it, Ray's own session folder has the output
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
    faulthandler.enable(file=2)
    faulthandler.register(signal.SIGUSR1, file=2)


class _Logged:
    """Mixed into an actor's class: the first argument is the file that its process writes to."""

    def __init__(self, log: Path, *args: Any) -> None:
        _begin(log)
        super().__init__(*args)


class QueueProcess(_Logged, QueueOwner): ...


class RewardProcess(_Logged, RewardActor): ...


class RolloutProcess(_Logged, RolloutActor): ...


class _FetchingLearner(LearnerActor):
    """A LearnerActor that fetches from the queue actor."""

    def __init__(self, config: Config, rank: int, transport: str) -> None:
        asker = Asker(config)
        queue = ray.get_actor(QUEUE)

        def fetch(group_ids: list[str]) -> list[bytes]:
            chunks = [group_ids[i : i + FETCH_GROUPS] for i in range(0, len(group_ids), FETCH_GROUPS)]
            answers = (asker.ask(partial(queue.payloads.remote, c), "the ledger's payloads") for c in chunks)
            return [payload for answer in answers for payload in answer]

        super().__init__(
            config=config,
            rank=rank,
            world_size=config.learner.ranks,
            transport=transport,
            fetch=fetch,
            address=ray.util.get_node_ip_address(),
        )

    def setup(self, address: str, port: int) -> dict[str, Any]:
        return {**super().setup(address, port), "place": place()}


class LearnerProcess(_Logged, _FetchingLearner): ...


def dump_stack(pid: int) -> str:
    """The stacks of a process on this machine, by py-spy; where that may not look, by the process itself into its log."""
    tool = shutil.which("py-spy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    why = "py-spy is not installed"
    if tool is not None:
        done = subprocess.run([tool, "dump", "--pid", str(pid)], capture_output=True, text=True, timeout=PY_SPY_S)
        if done.returncode == 0:
            return done.stdout
        why = done.stderr.strip()
    os.kill(pid, signal.SIGUSR1)
    return f"{why}; the process was asked to write its stacks to its file in logs/"
