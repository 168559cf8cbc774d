"""Measure weight transfer over gloo on loopback, with and without the digest of its bytes.

    python benchmarks/weight_sync.py --mebibytes 400          writes benchmarks/results/weight_sync.json

One sender and one or two receivers, one process with one thread each. Medians over repeats.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from pathlib import Path
from typing import Any, Literal

import torch

from learner.publish import WeightPublisher
from r1ray.config.schema import SyncConfig
from r1ray.transport.channel import Rendezvous
from r1ray.transport.plan import Digest, TensorSpec, bucket_plan, spec_of
from r1ray.transport.rendezvous import join
from r1ray.util.machine import this_machine

ROOT = Path(__file__).resolve().parent.parent
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


def transfer(weights: dict[str, torch.Tensor], receivers: int, digest: Literal["none", "wire"], repeats: int) -> float:
    """Return the median seconds of one transfer."""
    config = SyncConfig(digest=digest)
    specs = [spec_of(n, t) for n, t in weights.items()]
    publisher = WeightPublisher(config, transport="gloo", specs=specs, is_sender=True)
    rendezvous = publisher.open_epoch(1, receivers, "127.0.0.1")
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=receive, args=(rendezvous, 1 + i, specs, config, repeats)) for i in range(receivers)
    ]
    for process in processes:
        process.start()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        publisher.send(weights.items())
        seconds.append(time.perf_counter() - began)
    for process in processes:
        process.join(60)
    return statistics.median(seconds[1:])  # the first transfer also forms the process group


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
    """Parse the command line, measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    count = max(1, arguments.mebibytes // 16)
    weights = {f"layer.{i}": torch.randn(4 << 20) for i in range(count)}  # 16 MiB each
    rows: list[dict[str, Any]] = []
    for receivers in (1, 2):
        row: dict[str, Any] = {"receivers": receivers}
        for digest in DIGESTS:
            seconds = transfer(weights, receivers, digest, arguments.repeats)
            row[f"{digest}_mib_per_s"] = round(count * 16 / seconds, 1)
        row["digest_costs"] = round(1 - row["wire_mib_per_s"] / row["none_mib_per_s"], 3)
        rows.append(row)
    machine = this_machine()
    result = {
        "machine": {"cores": machine.cores, "memory_gib": round(machine.memory_bytes / 2**30, 1)},
        "mebibytes": count * 16,
        "digest_alone_mib_per_s": round(digest_rate(256), 1),
        "transfers": rows,
    }
    target = ROOT / "benchmarks" / "results" / "weight_sync.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
