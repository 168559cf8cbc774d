"""A learner rank: the base class of policy optimization, supervised fine-tuning and reward-model training.

    TrainingRank     engine, checkpoints, export           this file
      PolicyRank     steps on scored groups, publishing    learner/policy.py
      SupervisedRank steps on fixed rows                   learner/supervised.py
        SftRank          conversations                     learner/sft/rank.py
        RewardModelRank  preferences                       learner/preference/rank.py

Ranks are plain classes, one process each. `r1ray.launch.processes` makes Ray actors of them.
"""

from __future__ import annotations

import abc
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from learner import checkpoint
from learner.checkpoint_format import CheckpointFormat
from learner.engine import Engine
from learner.experts import ALL_EXPERTS, divide, expert_group, whole_buffers, whole_shapes
from learner.export import export_model
from learner.group import ProcessGroupRanks, init_process_group, named_failures, set_collective_timeout
from learner.lora import ADAPTER, new_adapters, write_adapter
from learner.model import PackedModel, empty_policy
from learner.model_folder import Fresh, folder_weights
from learner.reference import ReferencePolicy
from learner.sequence import ALONE, join_group
from r1ray.config.schema import Config
from r1ray.control.handles import LoadedCheckpoint
from r1ray.transport.store import listen_at
from r1ray.util.network import LOOPBACK


class TrainingRank(abc.ABC):
    """Rank `rank` of `config.learner.ranks`; other nodes reach this process at `host`.

    After `setup`, all methods are collectives: every rank calls them, in the same order. A collective that does not
    complete within `deadlines.collective_s` raises DeadlineExceeded on every waiting rank, and a lost rank raises
    InfrastructureError. After either the process must be replaced.
    """

    _engine: Engine

    def __init__(self, *, config: Config, rank: int, host: str = "127.0.0.1") -> None:
        self._config = config
        self._rank = rank
        self._world_size = config.learner.ranks
        self._sequence = ALONE
        self._experts = ALL_EXPERTS
        self._host = host
        self._listening: socket.socket | None = None
        self._folder = Path(config.model.path)
        self._version = 0
        self._reference: ReferencePolicy | None = None

    @abc.abstractmethod
    def _prepare(self) -> dict[str, Any]:
        """Build what trains `self._engine`; the result becomes part of what `setup` returns."""

    def _empty_module(self) -> PackedModel:
        """The module to train, without its weights. Raises ConfigError if the model cannot be trained."""
        return empty_policy(self._config.model, self._folder)

    def _fresh(self, module: Any) -> Fresh:
        """What gives values to the tensors of the module that the model folder may lack."""
        return new_adapters(module.hf, self._config.run.seed)

    # -- start ------------------------------------------------------------------------------------------------------

    def address(self) -> str:
        """Where other nodes reach this process. The answer also says that this rank runs."""
        return self._host

    def listen(self, host: str) -> int:
        """Open the rendezvous of the ranks at `host`, if this is rank 0; returns its port, 0 for other ranks."""
        if self._rank:
            return 0
        self._listening = listen_at(host)
        return int(self._listening.getsockname()[1])

    def setup(self, host: str, port: int) -> dict[str, Any]:
        """Join the other ranks at `host:port`, load the model, build the optimizer. With LOOPBACK as `host` nothing of
        the group listens on the network; otherwise each rank listens at its own address.

        Raises ConfigError if the model cannot be trained, InfrastructureError if the ranks do not meet.
        """
        started = time.perf_counter()
        config = self._config
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        torch.manual_seed(config.run.seed + self._rank)
        torch.use_deterministic_algorithms(config.run.deterministic)
        device = init_process_group(
            rank=self._rank,
            world_size=self._world_size,
            address=host,
            port=port,
            host=LOOPBACK if host == LOOPBACK else self._host,
            listening=self._listening,
            timeout_s=config.deadlines.actor_start_s,  # ranks that load a model from a shared disk are minutes apart
        )
        with named_failures("learner setup", deadline="deadlines.actor_start_s"):
            prepared = self.build(device)
        handles = (self._sequence.handle, *self._experts.handles)
        set_collective_timeout(config.deadlines.collective_s, *handles)
        return {
            "rank": self._rank,
            "device": str(device),
            "parameters": sum(t.numel() for _, t in self.named_weights()),
            "seconds": time.perf_counter() - started,
            **prepared,
        }

    def build(self, device: torch.device) -> dict[str, Any]:
        """Load the model and build its engine on `device`, in the process group that `setup` has joined."""
        config = self._config
        size, timeout_s = config.learner.sequence_parallel, config.deadlines.actor_start_s
        self._sequence = join_group(self._rank, self._world_size, size, timeout_s)
        self._experts = expert_group(self._rank, self._world_size, config.learner.expert_parallel)
        module = self._empty_module()
        weights = folder_weights(self._folder, module.hf, ranks=ProcessGroupRanks(device), fresh=self._fresh(module))
        if self._experts.size > 1:
            weights = divide(module, weights, self._experts, device)
        engine = Engine(
            self._watched(module),
            weights=weights,
            model=config.model,
            learner=config.learner,
            device=device,
            world_size=self._world_size,
            experts=self._experts,
        )
        return self.attach(engine)

    def _watched(self, module: PackedModel) -> PackedModel:
        """The module without its values, with what observes its passes."""
        return module

    def attach(self, engine: Engine) -> dict[str, Any]:
        """Train `engine` from step 0. `build` calls this; a test may attach an engine of its own."""
        self._engine, self._version, self._reference = engine, 0, None
        return self._prepare()

    # -- data parallelism -------------------------------------------------------------------------------------------

    @property
    def _replicas(self) -> int:
        """Number of sequence groups. Each computes its own rows; without sequence parallelism a rank is one."""
        return self._world_size // self._sequence.size

    @property
    def _replica(self) -> int:
        """The number of this rank's sequence group."""
        return self._rank // self._sequence.size

    @property
    def _counts(self) -> bool:
        """Whether sums over all ranks take what this rank observes: all ranks of its group observe the same."""
        return self._sequence.rank == 0

    # -- weights ----------------------------------------------------------------------------------------------------

    @property
    def policy_version(self) -> int:
        """Number of completed training steps; a step whose update was skipped counts."""
        return self._version

    @cached_property
    def _format(self) -> CheckpointFormat:
        hf = self._engine.module.hf
        return CheckpointFormat(hf, whole_shapes(hf, self._engine.experts))

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) as in the model's Hugging Face checkpoint: parameters in the compute dtype, then buffers.

        The order is fixed and tied weights come once. Each tensor is valid until the next is requested; every rank must
        iterate to the end.
        """
        with named_failures("gathering weights"):
            for name, tensor in self._engine.full_parameters():
                yield from self._format.tensors(name.removeprefix("hf."), tensor)
            for name, buffer in whole_buffers(self._engine.module.hf):
                yield from self._format.tensors(name, buffer)

    def export(self, folder: Path | str) -> None:
        """Write the model to `folder` in the Hugging Face format, completely or not at all. Raises DiskFull.

        Adapters are merged into it, and are also in its folder `adapter`, in PEFT's format.
        """
        export_model(
            self.named_weights(),
            source=self._folder,
            target=Path(folder),
            writer=self._rank == 0,
            more=self._write_adapter(self._engine.adapters()),
        )

    def _write_adapter(self, adapters: dict[str, Tensor]) -> Callable[[Path], None] | None:
        if not adapters:
            return None
        lora, named = self._config.model.lora, {name.removeprefix("hf."): t for name, t in adapters.items()}
        return lambda folder: write_adapter(folder / ADAPTER, named, lora, self._config.model.path)

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def save_checkpoint(self, folder: Path | str, run_id: str) -> None:
        """Write a checkpoint of run `run_id` to `folder`, completely or not at all. Raises DiskFull."""
        with self._file_deadline(), named_failures(f"saving {folder}", "deadlines.checkpoint_s"):
            checkpoint.save(
                Path(folder),
                engine=self._engine,
                reference=self._reference,
                policy_version=self._version,
                rng=self._engine.gather_ranks(_rng_state(self._engine.device)).cpu(),
                run_id=run_id,
                config=self._config,
                ranks=ProcessGroupRanks(self._engine.device),
            )

    def load_latest(self, folder: Path | str, run_id: str) -> LoadedCheckpoint:
        """Load the newest complete checkpoint below `folder`, which any number of ranks may have written.

        Returns `policy_version` and `name`, both None without a checkpoint, and `warnings` about skipped ones. Raises
        IntegrityError if all checkpoints are incomplete, since starting over would lose them, and if the newest is of
        another run or model.
        """
        with self._file_deadline(), named_failures(f"loading {folder}", "deadlines.checkpoint_s"):
            found = checkpoint.load_latest(
                Path(folder),
                engine=self._engine,
                reference=self._reference,
                run_id=run_id,
                ranks=ProcessGroupRanks(self._engine.device),
            )
        if found.path is not None:
            self._version = found.policy_version
        if self._rank < len(found.rng):  # a rank that did not exist then keeps its seed
            _set_rng_state(self._engine.device, found.rng[self._rank])
        return {
            "policy_version": None if found.path is None else self._version,
            "name": None if found.path is None else found.path.name,
            "warnings": found.warnings,
        }

    @contextlib.contextmanager
    def _file_deadline(self) -> Iterator[None]:
        """Ranks wait for each other's files longer than for a gradient."""
        deadlines = self._config.deadlines
        set_collective_timeout(max(deadlines.collective_s, deadlines.checkpoint_s))
        try:
            yield
        finally:
            set_collective_timeout(deadlines.collective_s)

    def discard_checkpoints(self, folder: Path | str, newer_than: int) -> None:
        """Remove the checkpoints of policies newer than version `newer_than`, which training returned to."""
        if self._rank == 0:
            for name in checkpoint.discard_newer(Path(folder), newer_than):
                print(f"checkpoint {name} removed: training continues from policy {newer_than}", flush=True)

    def prune_checkpoints(self, folder: Path | str) -> None:
        """Remove old checkpoints by `checkpoint.keep` and `checkpoint.keep_every_steps`."""
        if self._rank == 0:
            keep = self._config.checkpoint
            checkpoint.prune(Path(folder), keep=keep.keep, keep_every=keep.keep_every_steps)

    def close(self) -> None:
        """Leave the process group."""
        self._engine.close()


def _rng_state(device: torch.device) -> Tensor:
    """State of this rank's random generators as bytes: the CPU's, then the GPU's if there is one."""
    states = [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])
    return torch.cat(states).to(device)


def _set_rng_state(device: torch.device, row: bytes) -> None:
    state = torch.frombuffer(bytearray(row), dtype=torch.uint8)
    size = len(torch.get_rng_state())
    torch.set_rng_state(state[:size].clone())  # torch needs storage of its own
    if device.type == "cuda" and len(state) > size:
        torch.cuda.set_rng_state(state[size:].clone(), device)
