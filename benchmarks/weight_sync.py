"""Measure weight transfer over gloo on loopback, with and without the digest of its bytes.

    python -m benchmarks.weight_sync [--mebibytes 400] [--write]

One sender and one or two receivers, one process with one thread each. With and without take turns.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch

from benchmarks import measure
from learner.publish import WeightPublisher
from r1ray.config.schema import SyncConfig
from r1ray.transport.channel import Rendezvous
from r1ray.transport.plan import Digest, TensorSpec, bucket_plan, spec_of
from r1ray.transport.rendezvous import join

DIGESTS: tuple[Literal["none", "wire"], ...] = ("none", "wire")


def receive(rendezvous: Rendezvous, rank: int, specs: list[TensorSpec], config: SyncConfig, repeats: int) -> None:
    """Receive each transfer into new buffers, as a rollout worker does."""
    torch.set_num_threads(1)
    channel = join(rendezvous, rank=rank, host="127.0.0.1")
    for _ in range(repeats):
        digest = Digest()
        for bucket in bucket_plan(specs, config.bucket_bytes):
            buffer = channel.buffer(bucket.nbytes)
            channel.broadcast(buffer)
            if config.digest != "none":
                digest.update(buffer)


def transfer(weights: dict[str, torch.Tensor], receivers: int, digest: Literal["none", "wire"]) -> float:
    """Return the seconds of one transfer."""
    config = SyncConfig(digest=digest, bucket_deadline_s=300.0)  # receivers start anew each time
    specs = [spec_of(n, t) for n, t in weights.items()]
    publisher = WeightPublisher(config, transport="gloo", specs=specs, is_sender=True)
    rendezvous = publisher.open_epoch(1, receivers, "127.0.0.1")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=receive, args=(rendezvous, 1 + i, specs, config, 2)) for i in range(receivers)]
    for process in processes:
        process.start()
    publisher.send(weights.items())  # the first transfer also forms the process group
    began = time.perf_counter()
    publisher.send(weights.items())
    seconds = time.perf_counter() - began
    for process in processes:
        process.join(60)
    return seconds


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
    parser.add_argument("--mebibytes", type=int, default=400)
    arguments = parser.parse_args()
    session = measure.start("weight_sync", arguments)
    torch.set_num_threads(1)
    count = max(1, arguments.mebibytes // 16)
    weights = {f"layer.{i}": torch.randn(4 << 20) for i in range(count)}  # 16 MiB each
    rows: list[list[object]] = []
    claims: dict[str, measure.Summary] = {}
    for receivers in (1, 2):
        variants: dict[str, Callable[[], float]] = {
            digest: partial(transfer, weights, receivers, digest) for digest in DIGESTS
        }
        seconds = measure.interleaved(variants, session.repeats)
        claims[f"wire / none, {receivers} receivers"] = measure.ratio(seconds["wire"], seconds["none"])
        for digest in DIGESTS:
            rows.append([receivers, digest, round(count * 16 / statistics.median(seconds[digest]), 1)])
    heads = ["receivers", "digest", "MiB/s"]
    print(measure.table(heads, rows))
    result = {"mebibytes": count * 16, "digest_alone_mib_per_s": round(digest_rate(256), 1)}
    session.finish({**result, "transfers": [dict(zip(heads, row, strict=True)) for row in rows]}, claims)


if __name__ == "__main__":
    main()
