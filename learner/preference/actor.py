"""A rank of reward-model training as the driver sees it. A Ray actor is made of it by the composition root."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from learner.preference.train import RewardModelRank, Settings


class RewardModelActor:
    """`address` is how other nodes reach this one."""

    def __init__(self, *, data: Path, base: Path, settings: Settings, rank: int, address: str) -> None:
        self._reward_model = RewardModelRank(data=data, base=base, settings=settings, rank=rank)
        self._address = address

    def address(self) -> tuple[str, int]:
        """Address and a free port for the ranks to meet at."""
        with socket.socket() as s:
            s.bind(("", 0))
            return self._address, s.getsockname()[1]

    def setup(self, address: str, port: int) -> dict[str, Any]:
        return self._reward_model.setup(address, port)

    def load(self, checkpoints: str, run_id: str) -> int:
        return self._reward_model.load(Path(checkpoints), run_id)

    def save(self, checkpoints: str, run_id: str) -> None:
        self._reward_model.save(Path(checkpoints), run_id)

    def train_step(self) -> float:
        return self._reward_model.train_step()

    def report(self) -> dict[str, Any]:
        return self._reward_model.report()

    def write(self, out: str, report: dict[str, Any]) -> None:
        self._reward_model.write(Path(out), report)
