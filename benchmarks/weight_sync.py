"""Measure weight syncs over gloo on loopback, beside a plain broadcast of the same bytes.

    python -m benchmarks.weight_sync [--mebibytes 1024] [--tensor-mebibytes 16] [--bucket-mebibytes 64]
        [--write]

A transfer ends when the last receiver has all weights. All processes have one thread. The plain broadcast is torch's
own, bucket by bucket, between two buffers that are in memory already. Receivers are those of rollout workers, without
an engine: one, four on one host, and four that each stand for a host. The variants take turns.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Literal

import torch
from torch import distributed

from actors.host_copy import memory_id
from actors.staging import WeightReceiver
from benchmarks import measure
from learner.publish import WeightPublisher
from r1ray.config.schema import SyncConfig
from r1ray.transport.channel import Rendezvous
from r1ray.transport.digest import Digest
from r1ray.transport.plan import TensorSpec, bucket_plan, one_sender, spec_of, transfer_plan
from r1ray.transport.rendezvous import join
from r1ray.transport.store import listen_at, reach, serve
from r1ray.util.network import LOOPBACK

START_S = 300.0
"""For processes to start, and for any transfer to end."""
DIGESTS: tuple[Literal["none", "wire"], ...] = ("none", "wire")


def receive(rendezvous: Rendezvous, rank: int, specs: list[TensorSpec], config: SyncConfig, transfers: int) -> None:
    """Receive this many transfers, as a rollout worker does that is alone on its host."""
    receiver = joining(rendezvous, rank, "")
    for _ in range(transfers):
        take(receiver, specs, config)
        receiver.release()


def joining(rendezvous: Rendezvous, rank: int, memory: str) -> WeightReceiver:
    """A receiver that joins at its first transfer; `memory`: of its host."""
    torch.set_num_threads(1)
    receiver = WeightReceiver(torch.device("cpu"))
    receiver.enter(lambda device: join(rendezvous, rank=rank, memory=memory, host=LOOPBACK))
    return receiver


def take(receiver: WeightReceiver, specs: list[TensorSpec], config: SyncConfig) -> None:
    """Receive one transfer."""
    plan = transfer_plan(one_sender(specs), config.bucket_bytes)
    receiver.begin(plan, digest=config.digest != "none", delta=config.encoding == "delta")
    assert receiver._thread is not None
    receiver._thread.join(START_S)
    assert receiver.received() is not None, "the transfer did not end"


def answer(
    pipe: Connection, rendezvous: Rendezvous, rank: int, specs: list[TensorSpec], config: SyncConfig, memory: str
) -> None:
    """A receiving process: a transfer for every message, then a message."""
    receiver = joining(rendezvous, rank, memory)
    while pipe.recv_bytes() == b"receive":
        take(receiver, specs, config)
        pipe.send_bytes(b"")
        receiver.release()


def answer_plainly(pipe: Connection, port: int, sizes: list[int]) -> None:
    """The receiving end of plain broadcasts."""
    torch.set_num_threads(1)
    store = reach(LOOPBACK, port, timeout_s=START_S)
    distributed.init_process_group("gloo", store=store, rank=1, world_size=2)
    buffers = [torch.zeros(size, dtype=torch.uint8) for size in sizes]
    while pipe.recv_bytes() == b"receive":
        for buffer in buffers:
            distributed.broadcast(buffer, 0)
        pipe.send_bytes(b"")


class Receivers:
    """Processes that receive when they are asked to."""

    def __init__(self, target: Callable[..., None], arguments: list[tuple[Any, ...]]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for each in arguments:
            mine, theirs = context.Pipe()
            process = context.Process(target=target, args=(theirs, *each), daemon=True)
            process.start()
            self._pipes.append(mine)
            self._processes.append(process)

    def during(self, send: Callable[[], object]) -> float:
        """Seconds of one transfer."""
        began = time.perf_counter()
        for pipe in self._pipes:
            pipe.send_bytes(b"receive")
        send()
        for pipe in self._pipes:
            assert pipe.poll(START_S), "a receiver did not answer"
            pipe.recv_bytes()
        return time.perf_counter() - began

    def stop(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send_bytes(b"stop")
            process.join(60)


def plain(weights: Mapping[str, torch.Tensor], bucket_bytes: int) -> tuple[Receivers, Callable[[], object]]:
    """A receiver of plain broadcasts, and what sends them."""
    plan = bucket_plan([spec_of(n, t) for n, t in weights.items()], bucket_bytes)
    buffers = [torch.ones(bucket.nbytes, dtype=torch.uint8) for bucket in plan]
    store = serve(listen_at(LOOPBACK), address=LOOPBACK, timeout_s=START_S)
    receivers = Receivers(answer_plainly, [(store.port, [b.numel() for b in buffers])])
    distributed.init_process_group("gloo", store=store, rank=0, world_size=2)

    def send() -> None:
        for buffer in buffers:
            distributed.broadcast(buffer, 0)

    return receivers, send


def synced(
    weights: Mapping[str, torch.Tensor], bucket_bytes: int, digest: Literal["none", "wire"], count: int, memory: str
) -> tuple[Receivers, Callable[[], object]]:
    """Receivers in the shared memory `memory` (each alone if it is empty), and what sends to them."""
    config = SyncConfig(digest=digest, bucket_bytes=bucket_bytes, bucket_deadline_s=START_S)
    specs = [spec_of(n, t) for n, t in weights.items()]
    publisher = WeightPublisher(config, transport="gloo", plan=bucket_plan(specs, config.bucket_bytes), host=LOOPBACK)
    rendezvous = publisher.open_epoch(1, count)
    receivers = Receivers(answer, [(rendezvous, 1 + i, specs, config, memory) for i in range(count)])
    return receivers, lambda: publisher.send((name, 0, weight) for name, weight in weights.items())


def digest_rate(mebibytes: int) -> float:
    """Return the MiB per second of the digest alone, on one thread."""
    buffer = torch.randint(0, 255, (mebibytes << 20,), dtype=torch.uint8)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        Digest().update(buffer)
        times.append(time.perf_counter() - began)
    return mebibytes / statistics.median(times)


def main() -> None:
    """Parse the command line, measure, and store the result if requested."""
    parser = measure.parser(__doc__, repeats=6)
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--tensor-mebibytes", type=int, default=16)
    parser.add_argument("--bucket-mebibytes", type=int, default=SyncConfig().bucket_bytes >> 20)
    arguments = parser.parse_args()
    session = measure.start("weight_sync", arguments)
    torch.set_num_threads(1)
    size = arguments.tensor_mebibytes
    count = max(1, arguments.mebibytes // size)
    bucket = arguments.bucket_mebibytes << 20
    weights = {f"layer.{i}": torch.randn(size << 18) for i in range(count)}
    memory = memory_id()
    made = {"plain broadcast": plain(weights, bucket)}
    made |= {f"1 receiver, digest {digest}": synced(weights, bucket, digest, 1, memory) for digest in DIGESTS}
    made["4 receivers on a host"] = synced(weights, bucket, "wire", 4, memory)
    made["4 receivers apart"] = synced(weights, bucket, "wire", 4, "")
    variants = {name: partial(receivers.during, send) for name, (receivers, send) in made.items()}
    seconds = measure.interleaved(variants, session.repeats)
    for receivers, _ in made.values():
        receivers.stop()
    one = seconds["1 receiver, digest wire"]
    claims = {
        "speed of a sync / plain broadcast": measure.ratio(seconds["plain broadcast"], one),
        "time of 4 receivers on a host / of 1": measure.ratio(seconds["4 receivers on a host"], one),
        "time with a digest / without": measure.ratio(one, seconds["1 receiver, digest none"]),
    }
    heads = ["transfer", "MiB/s"]
    rows: list[list[object]] = [[name, round(count * size / statistics.median(seconds[name]), 1)] for name in made]
    print(measure.table(heads, rows))
    for name, claim in claims.items():
        print(f"{name}: {claim}")
    result = {
        "mebibytes": count * size,
        "tensor_mebibytes": size,
        "bucket_mebibytes": bucket >> 20,
        "digest_alone_mib_per_s": round(digest_rate(256), 1),
    }
    session.finish({**result, "transfers": [dict(zip(heads, row, strict=True)) for row in rows]}, claims)


if __name__ == "__main__":
    main()
