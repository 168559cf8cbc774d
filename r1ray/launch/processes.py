"""The learner's process, and a look into any process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import ray

from actors.processes import Logged
from actors.remote import QUEUE, RetryingClient, place
from learner.actor import LearnerActor
from learner.preference.actor import RewardModelActor
from learner.preference.train import Settings
from learner.sft.rank import SftActor
from r1ray.config.schema import Config

FETCH_GROUPS = 64
"""Payloads of one answer of the queue."""

PY_SPY_S = 15.0


class _FetchingLearner(LearnerActor):
    """A LearnerActor that fetches from the queue actor."""

    def __init__(self, config: Config, rank: int, transport: str) -> None:
        asker = RetryingClient(config)
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


class LearnerProcess(Logged, _FetchingLearner): ...


class _PlacedSft(SftActor):
    """An SftActor that says where it is."""

    def __init__(self, config: Config, rank: int, vocab_hash: str) -> None:
        super().__init__(
            config=config,
            rank=rank,
            world_size=config.learner.ranks,
            vocab_hash=vocab_hash,
            address=ray.util.get_node_ip_address(),
        )

    def setup(self, address: str, port: int) -> dict[str, Any]:
        return {**super().setup(address, port), "place": place()}


class SftProcess(Logged, _PlacedSft): ...


class _PlacedRewardModel(RewardModelActor):
    """A RewardModelActor that says where it is."""

    def __init__(self, data: Path, base: Path, settings: Settings, rank: int) -> None:
        address = ray.util.get_node_ip_address()
        super().__init__(data=data, base=base, settings=settings, rank=rank, address=address)

    def setup(self, address: str, port: int) -> dict[str, Any]:
        return {**super().setup(address, port), "place": place()}


class RewardModelProcess(Logged, _PlacedRewardModel): ...


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
