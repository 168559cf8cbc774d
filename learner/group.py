"""Process group of the learner ranks, and named errors for its failures."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import warnings
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Protocol

import torch
from torch import Tensor

from r1ray.errors import DeadlineExceeded, InfrastructureError
from r1ray.transport.store import listen_at, reach, serve
from r1ray.util.network import interface_of


def init_process_group(
    *,
    rank: int,
    world_size: int,
    address: str,
    port: int,
    timeout_s: float,
    host: str | None = None,
    listening: socket.socket | None = None,
) -> torch.device:
    """Join the learner's process group at `address:port`: gloo on CPU, nccl on GPU. Returns this rank's device.

    `host`: address at which this rank's gloo listens, `address` if None. `listening`: rank 0's socket at
    `address:port`, opened here if None. The ranks meet within `timeout_s`, and every collective completes or fails
    within it, unless `set_collective_timeout` changes that. Raises InfrastructureError if the ranks do not meet.
    """
    import deepspeed

    cuda = torch.cuda.is_available()
    timeout = timedelta(seconds=timeout_s)
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    os.environ["LOCAL_RANK"] = "0"  # required by DeepSpeed; every rank sees exactly one device, its own
    if not cuda:
        # Keep DeepSpeed from compiling a shared-memory all-reduce that is not used: that needs a compiler and 8 s.
        deepspeed.ops.__compatible_ops__ = {}
    # DeepSpeed still calls two collectives by names that torch 2.13 has deprecated, in every micro-batch.
    warnings.filterwarnings("ignore", "`torch.distributed.(all_gather_into|reduce_scatter)_tensor`", FutureWarning)
    # Otherwise gloo listens at the address of the host's name; torch passes it no other setting.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", interface_of(host or address))
    backend = "nccl" if cuda else "gloo"
    try:
        # Not left to DeepSpeed, whose store would listen on all addresses of the host.
        torch.distributed.init_process_group(
            backend,
            store=_store(rank, world_size, address, port, timeout_s, listening),
            rank=rank,
            world_size=world_size,
            timeout=timeout,
            device_id=device if cuda and world_size > 1 else None,  # as DeepSpeed does
        )
        deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False, timeout=timeout)
        set_collective_timeout(timeout_s)
    except (RuntimeError, ValueError) as e:
        raise InfrastructureError(f"learner rank {rank} of {world_size} could not join {address}:{port}: {e}") from e
    return device


def _store(
    rank: int, world_size: int, address: str, port: int, timeout_s: float, listening: socket.socket | None
) -> torch.distributed.Store:
    if rank:
        return reach(address, port, timeout_s=timeout_s, world_size=world_size)
    return serve(listening or listen_at(address, port), address=address, timeout_s=timeout_s, world_size=world_size)


def set_collective_timeout(seconds: float, *more: Any) -> None:
    """Bound every later collective of this rank by `seconds`. `more`: further process groups; None is none."""
    from deepspeed.utils import groups

    timeout = timedelta(seconds=seconds)
    torch.distributed.distributed_c10d._set_pg_timeout(timeout)
    # DeepSpeed communicates over a clone of the world group that does not inherit its timeout.
    for group in (groups._clone_world_group(), *(g for g in more if g is not None)):
        torch.distributed.distributed_c10d._set_pg_timeout(timeout, group)


class Ranks(Protocol):
    """What ranks tell each other. Every method is a collective; values are what JSON can hold."""

    rank: int
    size: int

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0, on every rank."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, on every rank."""
        ...

    def share(self, values: Tensor, source: int) -> Tensor:
        """The values of rank `source`, flat; the others give a tensor of that size and type, on `meta`."""
        ...


class ProcessGroupRanks:
    """Ranks of torch's process group, which `init_process_group` has joined."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self._device = device

    def broadcast(self, value: Any) -> Any:
        """See `Ranks`."""
        data = self._encode(value)
        size = torch.tensor([len(data)], device=self._device)
        torch.distributed.broadcast(size, 0)
        received = data if self.rank == 0 else data.new_empty(int(size))
        torch.distributed.broadcast(received, 0)
        return self._decode(received)

    def gather(self, value: Any) -> list[Any]:
        """See `Ranks`."""
        data = self._encode(value)
        sizes = [torch.zeros(1, dtype=torch.int64, device=self._device) for _ in range(self.size)]
        torch.distributed.all_gather(sizes, torch.tensor([len(data)], device=self._device))
        longest = max(int(size) for size in sizes)
        rows = [data.new_empty(longest) for _ in range(self.size)]
        torch.distributed.all_gather(rows, torch.nn.functional.pad(data, (0, longest - len(data))))
        return [self._decode(row[: int(size)]) for row, size in zip(rows, sizes, strict=True)]

    def share(self, values: Tensor, source: int) -> Tensor:
        """See `Ranks`."""
        on_device = torch.empty_like(values, device=self._device) if values.is_meta else values.to(self._device)
        torch.distributed.broadcast(on_device.view(torch.uint8), source)
        return on_device

    def _encode(self, value: Any) -> Tensor:
        return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(self._device)

    def _decode(self, data: Tensor) -> Any:
        return json.loads(data.cpu().numpy().tobytes())


@contextlib.contextmanager
def named_failures(doing: str, deadline: str = "deadlines.collective_s") -> Iterator[None]:
    """Raise failures of collectives in the block as DeadlineExceeded or InfrastructureError that name `doing`.

    `deadline`: the key that bounds them. Other errors pass unchanged. After either error the group is unusable.
    """
    try:
        yield
    except RuntimeError as e:
        if not isinstance(e, torch.distributed.DistError) and "gloo" not in str(e):
            raise
        if "timed out" in str(e).lower():
            raise DeadlineExceeded(f"{doing}: a rank did not come within {deadline}: {e}") from e
        raise InfrastructureError(f"{doing}: the connection to another learner rank broke: {e}") from e
