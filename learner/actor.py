"""One learner rank as the controller sees it: trains, publishes, saves. A Ray actor is made of it by the composition root."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from learner.checkpoint import discard_newer, prune
from learner.publish import Sent, WeightPublisher
from learner.rank import LearnerRank, TrainingRank
from r1ray.config.schema import Config
from r1ray.errors import IntegrityError
from r1ray.run.checkpoints import find_latest
from r1ray.transport.channel import Rendezvous
from r1ray.transport.plan import TensorSpec, spec_of
from r1ray.types import BatchManifest

Fetch = Callable[[list[str]], list[bytes]]


class TrainingActor:
    """What every kind of training shares; `learner` is the rank, `address` is how other nodes reach this one."""

    def __init__(self, config: Config, rank: int, learner: TrainingRank, address: str) -> None:
        self._config = config
        self._rank = rank
        self._training = learner
        self._address = address

    def address(self) -> tuple[str, int]:
        """Address and a free port for the ranks to meet at."""
        with socket.socket() as s:
            s.bind(("", 0))
            return self._address, s.getsockname()[1]

    def setup(self, address: str, port: int) -> dict[str, Any]:
        return self._training.setup(address, port)

    def load_latest(self, folder: str, run_id: str) -> dict[str, Any]:
        """Load the newest whole checkpoint below `folder`, if any; what was skipped stands under "warnings".

        Raises IntegrityError where there are checkpoints and none is whole: starting from nothing would be worse; and where
        it is not of run `run_id`: it is somebody's, who would not have it overwritten.
        """
        found = find_latest(Path(folder))
        if found.path is None and found.warnings:
            raise IntegrityError(
                f"no checkpoint in {folder} is whole, nothing was changed: {'; '.join(found.warnings)}"
            )
        if found.path is not None:
            self._training.load_checkpoint(found.path, run_id)
        return {
            "policy_version": None if found.path is None else self._training.policy_version,
            "name": None if found.path is None else found.path.name,
            "warnings": list(found.warnings),
        }

    def save_checkpoint(self, folder: str, run_id: str) -> None:
        self._training.save_checkpoint(Path(folder), run_id)

    def discard_checkpoints(self, folder: str, newer_than: int) -> None:
        """Remove checkpoints of policies that training has gone back behind."""
        if self._rank == 0:
            for name in discard_newer(Path(folder), newer_than):
                print(
                    f"checkpoint {name} removed: training goes on from policy {newer_than} or an older one", flush=True
                )

    def prune_checkpoints(self, folder: str) -> None:
        if self._rank == 0:
            keep = self._config.checkpoint
            prune(Path(folder), keep=keep.keep, keep_every=keep.keep_every_steps)

    def export(self, folder: str) -> None:
        self._training.export(Path(folder))


class LearnerActor(TrainingActor):
    """Policy optimisation; `fetch(group_ids)` gets payloads from the ledger."""

    def __init__(
        self, *, config: Config, rank: int, world_size: int, transport: str, fetch: Fetch, address: str
    ) -> None:
        self._learner = LearnerRank(config=config, rank=rank, world_size=world_size)
        super().__init__(config, rank, self._learner, address)
        self._transport = transport
        self._fetch = fetch
        self._publisher: WeightPublisher | None = None
        self._specs: list[TensorSpec] = []

    def setup(self, address: str, port: int) -> dict[str, Any]:
        info = super().setup(address, port)
        self._specs = [spec_of(name, tensor) for name, tensor in self._learner.named_weights()]
        self._publisher = WeightPublisher(
            self._config.sync, transport=self._transport, specs=self._specs, is_sender=self._rank == 0
        )
        return info

    def train_step(self, manifest: BatchManifest) -> dict[str, float]:
        return self._learner.train_step(manifest, self._fetch)

    def weight_specs(self) -> list[tuple[str, str, tuple[int, ...]]]:
        return [(s.name, s.dtype, s.shape) for s in self._specs]

    def open_epoch(self, epoch: int, receivers: int) -> Rendezvous:
        assert self._publisher is not None
        return self._publisher.open_epoch(epoch, receivers, self._address)

    def publish(self, version: int) -> Sent:
        """Send the weights of policy `version`, which must be the one this rank holds."""
        assert self._publisher is not None
        assert version == self._learner.policy_version, (
            f"policy {version} asked for, {self._learner.policy_version} held"
        )
        return self._publisher.send(self._learner.named_weights())
