"""A learner rank: the plain class that an actor (or a test) wraps. One process each.

`TrainingRank` is what policy optimisation and supervised fine-tuning share: engine, checkpoints, export.
"""

from __future__ import annotations

import abc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from learner import checkpoint
from learner.assemble import Fetch
from learner.engine import Engine
from learner.export import export_model
from learner.group import init_process_group, named_failures
from learner.model import load_policy
from learner.reference import ReferencePolicy
from learner.trainer import PolicyTrainer
from r1ray.config.rules import keeps_reference
from r1ray.config.schema import Config
from r1ray.errors import IntegrityError
from r1ray.types import BatchManifest


class TrainingRank(abc.ABC):
    """Rank `rank` of `world_size`. After `setup`, all methods are collectives: every rank calls them, in the same order.

    A collective that does not come about within `deadlines.collective_s` raises DeadlineExceeded in every rank that waits for
    it, a lost rank InfrastructureError; after either the process is of no use any more and must be replaced.
    """

    def __init__(self, *, config: Config, rank: int, world_size: int) -> None:
        self._config = config
        self._rank = rank
        self._world_size = world_size
        self._version = 0
        self._reference: ReferencePolicy | None = None

    @abc.abstractmethod
    def _prepare(self) -> dict[str, Any]:
        """Make what trains the engine; what it says of itself goes into the answer of `setup`."""

    def setup(self, master_addr: str, master_port: int) -> dict[str, Any]:
        """Join the other ranks at `master_addr:master_port`, load the model, build the optimiser.

        Raises ConfigError for a model that cannot be trained, InfrastructureError where the ranks do not meet.
        """
        started = time.perf_counter()
        config = self._config
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        torch.manual_seed(config.run.seed + self._rank)
        torch.use_deterministic_algorithms(config.run.deterministic)
        device = init_process_group(
            rank=self._rank,
            world_size=self._world_size,
            address=master_addr,
            port=master_port,
            timeout_s=config.deadlines.collective_s,
        )
        with named_failures("learner setup"):
            prepared = self._build(device)
        return {
            "rank": self._rank,
            "device": str(device),
            "parameters": sum(t.numel() for _, t in self.named_weights()),
            "seconds": time.perf_counter() - started,
            **prepared,
        }

    def _build(self, device: torch.device) -> dict[str, Any]:
        config = self._config
        self._folder = Path(config.model.path)
        self._engine = Engine(
            load_policy(config.model, self._folder),
            model=config.model,
            learner=config.learner,
            device=device,
            world_size=self._world_size,
        )
        return self._prepare()

    @property
    def policy_version(self) -> int:
        """How many training steps the policy has behind it; a step whose update was skipped counts."""
        return self._version

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """(Hugging Face name, tensor) in a fixed order, tied weights once, in the compute dtype.

        A tensor is valid until the next one is asked for; every rank must iterate to the end.
        """
        with named_failures("gathering weights"):
            for name, tensor in self._engine.full_parameters():
                yield name.removeprefix("hf."), tensor

    def save_checkpoint(self, folder: Path, run_id: str) -> None:
        """Write everything needed to go on with run `run_id` from here to `folder`: whole or not at all."""
        with named_failures(f"saving {folder}"):
            checkpoint.save(
                Path(folder),
                engine=self._engine,
                reference=self._reference,
                policy_version=self._version,
                rng=self._engine.gather_ranks(_rng_state(self._engine.device)).cpu(),
                run_id=run_id,
                config=self._config,
                writer=self._rank == 0,
            )

    def load_checkpoint(self, folder: Path, run_id: str) -> None:
        """Go on from a checkpoint of run `run_id`, of any number of ranks.

        `find_latest` has found it whole. Raises IntegrityError for one of another run or model.
        """
        with named_failures(f"loading {folder}"):
            self._version, rng = checkpoint.load(
                Path(folder), engine=self._engine, reference=self._reference, run_id=run_id
            )
        if self._rank < len(rng):  # a rank that did not exist then keeps its seed
            _set_rng_state(self._engine.device, rng[self._rank])

    def export(self, folder: Path) -> None:
        """Write the policy in the Hugging Face format: whole or not at all."""
        export_model(self.named_weights(), source=self._folder, target=Path(folder), writer=self._rank == 0)

    def close(self) -> None:
        """Leave the process group."""
        self._engine.close()


class LearnerRank(TrainingRank):
    """Policy optimisation on scored groups."""

    def _prepare(self) -> dict[str, Any]:
        config = self._config
        if keeps_reference(config):
            self._reference = ReferencePolicy(load_policy(config.model, self._folder), self._engine, version=0)
        self._trainer = PolicyTrainer(
            config, self._engine, self._reference, rank=self._rank, world_size=self._world_size
        )
        return {}

    def train_step(self, manifest: BatchManifest, fetch: Fetch) -> dict[str, float]:
        """Train on the groups of the manifest; returns metrics by their names in docs/run-folder.md.

        A mean over nothing is left out (mismatch/* when the policy sampled none of the batch). Raises IntegrityError for a
        manifest of another step or payloads that contradict it.
        """
        if manifest.step != self._version:
            raise IntegrityError(f"manifest of step {manifest.step}, but the learner holds policy {self._version}")
        refresh = self._config.algorithm.reference_refresh_steps
        with named_failures(f"training step {manifest.step}"):
            if self._reference is not None and refresh and self._version and self._version % refresh == 0:
                self._reference.refresh(self._version)
            metrics = self._trainer.train_step(manifest, fetch)
        self._version += 1
        return metrics


def _rng_state(device: torch.device) -> Tensor:
    """State of this rank's random generators, as bytes: the CPU's, then the GPU's where there is one."""
    states = [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])
    return torch.cat(states).to(device)


def _set_rng_state(device: torch.device, state: Tensor) -> None:
    size = len(torch.get_rng_state())
    torch.set_rng_state(state[:size].clone())  # torch wants storage of its own
    if device.type == "cuda" and len(state) > size:
        torch.cuda.set_rng_state(state[size:].clone(), device)
