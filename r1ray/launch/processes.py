"""Classes of the learner ranks' processes, and stack dumps of any process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray

from actors.handle import RetryingClient, queue_handle
from actors.processes import Logged
from actors.remote import place
from learner.policy import PolicyRank
from learner.preference.rank import RewardModelRank
from learner.sft.rank import SftRank
from r1ray.config.schema import Config
from r1ray.control.handles import QueueApi
from r1ray.control.process_memory import LEARNER_MEMORY
from r1ray.telemetry.logs import LogTarget, at
from r1ray.util.machine import resident_bytes

FETCH_GROUPS = 64
"""Largest number of payloads in one reply of the queue."""

PY_SPY_S = 15.0


class _RankProcess(Logged):
    """Mixed into the class of a rank: adds the process to what `setup` returns, and its memory to the metrics."""

    def setup(self, host: str, port: int) -> dict[str, Any]:
        return {**super().setup(host, port), "place": place()}  # type: ignore[misc]

    def train_step(self, *args: Any) -> dict[str, float]:
        version: int = self._version  # type: ignore[attr-defined]
        at(step=version, version=version)
        metrics = super().train_step(*args)  # type: ignore[misc]
        at(version=version + 1)
        return {**metrics, LEARNER_MEMORY: float(resident_bytes())}


class LearnerProcess(_RankProcess, PolicyRank):
    """A rank of policy optimization, which fetches payloads from the queue actor."""

    def __init__(self, log: LogTarget, config: Config, rank: int) -> None:
        host = ray.util.get_node_ip_address()
        super().__init__(log, config=config, rank=rank, fetch=_fetch_from_queue(config), host=host)


class SftProcess(_RankProcess, SftRank):
    """A rank of supervised fine-tuning."""

    def __init__(self, log: LogTarget, config: Config, rank: int, vocab_hash: str) -> None:
        host = ray.util.get_node_ip_address()
        super().__init__(log, config=config, rank=rank, vocab_hash=vocab_hash, host=host)


class RewardModelProcess(_RankProcess, RewardModelRank):
    """A rank of reward-model training."""

    def __init__(self, log: LogTarget, config: Config, rank: int, vocab_hash: str) -> None:
        host = ray.util.get_node_ip_address()
        super().__init__(log, config=config, rank=rank, vocab_hash=vocab_hash, host=host)


def _fetch_from_queue(config: Config) -> Callable[[list[str]], list[bytes]]:
    client = RetryingClient(config)
    queue = queue_handle()

    def fetch(group_ids: list[str]) -> list[bytes]:
        chunks = [group_ids[i : i + FETCH_GROUPS] for i in range(0, len(group_ids), FETCH_GROUPS)]
        answers = (client.call(partial(queue.start, QueueApi.payloads, c), "the ledger's payloads") for c in chunks)
        return [payload for answer in answers for payload in answer]

    return fetch


def dump_stack(pid: int) -> str:
    """Return the stacks of a process on this machine, read by py-spy.

    If py-spy may not, the process writes them to its log.
    """
    tool = shutil.which("py-spy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    why = "py-spy is not installed"
    if tool is not None:
        done = subprocess.run([tool, "dump", "--pid", str(pid)], capture_output=True, text=True, timeout=PY_SPY_S)
        if done.returncode == 0:
            return done.stdout
        why = done.stderr.strip()
    os.kill(pid, signal.SIGUSR1)
    return f"{why}; its stacks are in its file in logs/"
