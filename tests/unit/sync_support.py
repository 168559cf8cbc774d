"""Learner ranks and rollout workers without models: what a weight sync consists of, each process a thread.

Rendezvous, groups, buckets, shared copies and the control loop's coordinator are the real ones; stores are torch's own
without connections, since torch looks up a name for each, which takes seconds with a slow name server. A process that
dies does nothing more and leaves its sockets open, as under SIGSTOP: only the control loop's notice ends the waits of
the others.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import HashStore

from actors.staging import WeightReceiver
from learner.publish import WeightPublisher
from r1ray.config.schema import SyncConfig
from r1ray.control.handles import Handle
from r1ray.control.sync import WeightSync
from r1ray.errors import DeadlineExceeded, ProcessDied
from r1ray.transport import rendezvous as rendezvous_module
from r1ray.transport.abortable import in_thread
from r1ray.transport.channel import Channel, Pending, Rendezvous
from r1ray.transport.plan import spec_of, stream_plan, transfer_plan
from r1ray.transport.rendezvous import Member, abort, join
from r1ray.transport.transfer import Applied, Sent, Share, TransferSpecs, WeightLayout

LOOPBACK = "127.0.0.1"


class ThreadHandle(Handle[Any]):
    """A process whose calls run in threads; `kill` makes them raise ProcessDied, whatever their threads do."""

    def __init__(self, name: str, api: Any) -> None:
        self.name, self.api = name, api
        self.dead = False
        self._calls: list[Future[Any]] = []
        self._lock = threading.Lock()

    def _start(self, method: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Future[Any]:
        call: Future[Any] = Future()
        self._calls.append(call)
        if self.dead:
            self.kill()
            return call
        in_thread(lambda: getattr(self.api, method)(*args, **kwargs)).add_done_callback(
            lambda done: self._settle(call, done.exception(), done)
        )
        return call

    def _settle(self, call: Future[Any], error: BaseException | None, done: Future[Any] | None = None) -> None:
        with self._lock:
            if call.done():
                return
            if error is not None:
                call.set_exception(error)
            else:
                assert done is not None
                call.set_result(done.result())

    def kill(self) -> None:
        self.dead = True
        for call in self._calls:
            self._settle(call, ProcessDied(f"{self.name} died"))


class Stores:
    """In place of the servers of stores: by port, a store in this process."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._made: dict[int, HashStore] = {}
        self._listening: list[socket.socket] = []
        patch.setattr(rendezvous_module, "serve", self._serve)
        patch.setattr(rendezvous_module, "reach", lambda address, port, timeout_s: self._made[port])

    def _serve(self, listening: socket.socket, *, address: str, timeout_s: float) -> Any:
        self._listening.append(listening)  # an abort first looks whether somebody listens
        port = listening.getsockname()[1]

        class Served(HashStore):
            """With a port."""

            port: int

        made = self._made[port] = Served()
        made.port = port
        made.set_timeout(timedelta(seconds=timeout_s))
        return made

    def close(self) -> None:
        for listening in self._listening:
            listening.close()


class Traps:
    """What happens to which process in which phase: (name, phase) -> called in its thread."""

    def __init__(self) -> None:
        self.set: dict[tuple[str, str], Callable[[], object]] = {}
        self._end = threading.Event()

    def reach(self, name: str, phase: str) -> None:
        if (trap := self.set.pop((name, phase), None)) is not None:
            trap()

    def hang(self) -> None:
        """Do nothing more until the test ends."""
        self._end.wait(120.0)
        raise ProcessDied("the test has ended")

    def end(self) -> None:
        self._end.set()


class Worker:
    """A rollout worker's receiving side; `host` stands for the shared memory that it is in."""

    def __init__(self, name: str, host: str, folder: Path, traps: Traps) -> None:
        self.name, self._host, self._traps = name, host, traps
        self._receiver = WeightReceiver(torch.device("cpu"), folder)
        self.weights: dict[str, torch.Tensor] = {}
        self.follows = False

    def receive_weights(
        self,
        *,
        version: int,
        group: tuple[Rendezvous, int] | None,
        layout: WeightLayout,
        bucket_bytes: int,
        deadline_s: float,
    ) -> Applied:
        if group is not None:
            self._receiver.enter(lambda device: self._join(*group))
        self._receiver.begin(transfer_plan(layout, bucket_bytes), digest=True)
        thread = self._receiver._thread
        assert thread is not None
        thread.join(deadline_s)
        received = self._receiver.received()
        if received is None:
            raise DeadlineExceeded(f"{self.name} has not received policy {version} after {deadline_s:g} s")
        self._traps.reach(self.name, "received")
        self.weights = {name: tensor.clone() for name, tensor in self._receiver.tensors().items()}
        self._receiver.release()
        return Applied(version=version, digest=received.digest, apply_s=0.0, digest_s=0.0)

    def _join(self, rendezvous: Rendezvous, rank: int) -> Member:
        self._traps.reach(self.name, "report")
        member = join(rendezvous, rank=rank, memory=self._host, host=LOOPBACK)
        self.follows = not member.channels
        self._traps.reach(self.name, "joined")
        second = partial(self._traps.reach, self.name, "bucket")
        return replace(member, channels=tuple(Trapped(channel, second) for channel in member.channels))


class Trapped(Channel):
    """A channel that calls `second` before its second bucket."""

    def __init__(self, channel: Channel, second: Callable[[], object]) -> None:
        self._channel, self._second, self._started = channel, second, 0

    def buffer(self, nbytes: int) -> torch.Tensor:
        return self._channel.buffer(nbytes)

    def start(self, buffer: torch.Tensor) -> Pending:
        self._started += 1
        if self._started == 2:
            self._second()
        return self._channel.start(buffer)

    def memory(self, nbytes: int) -> torch.Tensor:
        return self._channel.memory(nbytes)

    def close(self) -> None:
        self._channel.close()


class Rank:
    """A learner rank that only publishes: of `ranks` equal parts of each weight its own, as under ZeRO 3."""

    def __init__(
        self, rank: int, ranks: int, config: SyncConfig, weights: dict[str, torch.Tensor], traps: Traps
    ) -> None:
        self.name, self._weights, self._traps = f"learner-{rank}", weights, traps
        self._specs = [spec_of(n, t) for n, t in weights.items()]
        counts = [spec.nbytes // 4 // ranks for spec in self._specs]
        self._shares: list[Share] = [(i, rank * count, count) for i, count in enumerate(counts)]
        plan = stream_plan(self._specs, self._shares, config.bucket_bytes)
        self._publisher = WeightPublisher(config, transport="gloo", plan=plan, rank=rank, senders=ranks, host=LOOPBACK)

    def weight_specs(self) -> TransferSpecs:
        return [(s.name, s.dtype, s.shape) for s in self._specs]

    def weight_shares(self) -> list[Share]:
        return self._shares

    def open_epoch(self, epoch: int, receivers: int) -> Rendezvous:
        return self._publisher.open_epoch(epoch, receivers)

    def publish(self, version: int, group: Rendezvous | None) -> Sent:
        self._traps.reach(self.name, "report")
        return self._publisher.send(self._stream(), group)

    def _stream(self) -> Iterator[tuple[str, int, torch.Tensor]]:
        for index, start, count in self._shares:
            if index == len(self._shares) // 2:
                self._traps.reach(self.name, "bucket")
            name = self._specs[index].name
            yield name, start, self._weights[name].view(-1)[start : start + count]


class SyncWorld:
    """`senders` learner ranks, `receivers` workers on `hosts` hosts, and the coordinator of their syncs."""

    def __init__(
        self, *, senders: int, receivers: int, hosts: int, folder: Path, deadline_s: float, bucket_deadline_s: float
    ) -> None:
        self.traps = Traps()
        self.ends = False
        self.config = SyncConfig(
            bucket_bytes=6144,
            deadline_s=deadline_s,
            bucket_deadline_s=bucket_deadline_s,
            digest="wire",
            senders="all",
        )
        torch.manual_seed(0)
        self.weights = {f"layer.{i}": torch.randn(64, 24) for i in range(12)}
        self._folder, self._hosts = folder, hosts
        made = [Rank(rank, senders, self.config, self.weights, self.traps) for rank in range(senders)]
        self.ranks = {rank.name: ThreadHandle(rank.name, rank) for rank in made}
        self.workers: dict[str, ThreadHandle] = {}
        for _ in range(receivers):
            self.add()
        self.sync = WeightSync(self.config, processes=1, abort=abort, tick=lambda: None, stopping=lambda: self.ends)
        self._version = 0

    def add(self) -> str:
        number = len(self.workers)
        name = f"rollout-{number:02d}"
        worker = Worker(name, f"host {number % self._hosts}", self._folder, self.traps)
        self.workers[name] = ThreadHandle(name, worker)
        return name

    def publish(self) -> Any:
        self._version += 1
        with torch.no_grad():
            for weight in self.weights.values():
                weight.add_(1.0)
        living = {name: handle for name, handle in self.workers.items() if not handle.dead}
        return self.sync.publish(list(self.ranks.values()), living, self._version)

    def serve_the_weights(self, names: Sequence[str]) -> bool:
        return all(
            self.workers[name].api.weights.keys() == self.weights.keys()
            and all(torch.equal(self.workers[name].api.weights[n], w) for n, w in self.weights.items())
            for name in names
        )

    def close(self) -> None:
        """Let the processes that hang go on, and all leave their groups."""
        self.traps.end()
        self.wait_for_receivers(60.0)
        for worker in self.workers.values():
            worker.api._receiver.leave()
        for rank in self.ranks.values():
            rank.api._publisher._leave()

    def wait_for_receivers(self, limit_s: float, but: str | None = None) -> None:
        """Wait for the receiving threads to end."""
        for name, handle in self.workers.items():
            if name != but and (thread := handle.api._receiver._thread) is not None:
                thread.join(limit_s)
                assert not thread.is_alive(), f"{name} still receives"

    def die(self, name: str, phase: str) -> None:
        """Have the process stop in that phase, and the control loop hear of its death."""

        def trap() -> None:
            {**self.ranks, **self.workers}[name].kill()
            self.traps.hang()

        self.traps.set[name, phase] = trap
