"""One learner rank of `benchmarks.learner_io`, and what its process reads, writes, sends and holds in each phase."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r1ray.config.schema import Config

RUN = "benchmark"
SENT_AT = 200
"""Offset of `tcpi_bytes_sent` in Linux's `struct tcp_info`."""


class Meter:
    """Measures phases of this process."""

    def __init__(self) -> None:
        self.phases: dict[str, dict[str, float]] = {}

    def measure(self, name: str, work: Callable[[], Any]) -> Any:
        """Run `work` as the phase `name`; what it returns."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
        before, sent, began = _proc("io"), _sent(), time.perf_counter()
        result = work()
        seconds, after = time.perf_counter() - began, _proc("io")
        moved = {key: (after[key] - before[key]) / 1e6 for key in ("read_bytes", "write_bytes")}
        self.phases[name] = {
            "seconds": seconds,
            "peak_mib": _proc("status")["VmHWM"] / 1024,
            "sent": (_sent() - sent) / 1e6,
            **moved,
        }
        return result


def _proc(name: str) -> dict[str, int]:
    lines = (line.split(":") for line in Path(f"/proc/self/{name}").read_text().splitlines())
    return {key: int(value.split()[0]) for key, value in lines if value.split() and value.split()[0].isdigit()}


def _sent() -> int:
    """Bytes that the open TCP connections of this process have sent."""
    sockets = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:  # the descriptor of the list itself
            continue
        if target.startswith("socket:"):
            sockets[target] = int(entry)
    total = 0
    for descriptor in sockets.values():
        with socket.socket(fileno=os.dup(descriptor)) as each:
            if each.family in (socket.AF_INET, socket.AF_INET6) and each.type == socket.SOCK_STREAM:
                info = each.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                total += struct.unpack_from("Q", info, SENT_AT)[0]
    return total


def rank_main(pipe: Any, config: Config, rank: int, port: int, folder: str) -> None:
    """One rank: it starts, trains a step, publishes, saves a checkpoint and loads it."""
    import deepspeed  # noqa: F401 - reading Python code is no part of a phase
    from transformers import Qwen2ForCausalLM  # noqa: F401

    from benchmarks.groups import make_manifest
    from benchmarks.learner import make_groups
    from learner.policy import PolicyRank
    from r1ray.codec import pack_scored
    from r1ray.models.folder import read_shape

    groups = make_groups(config.learner.groups_per_step, read_shape(Path(config.model.path)).vocabulary)
    payloads = {g.rollout.group_id: pack_scored(g) for g in groups}
    meter, checkpoints = Meter(), Path(folder) / "checkpoints"
    learner = PolicyRank(config=config, rank=rank, fetch=lambda ids: [payloads[i] for i in ids])
    meter.measure("start", lambda: learner.setup("127.0.0.1", port))
    meter.measure("step", lambda: learner.train_step(make_manifest(0, groups)))
    receiver = start_receiver(learner, config) if rank == 0 else None
    learner.publish(1, None)  # forms the group
    meter.measure("sync", lambda: learner.publish(1, None))
    if receiver is not None:
        receiver.join(60)
    meter.measure("save", lambda: learner.save_checkpoint(checkpoints / "step_000001", RUN))
    drop_cache(checkpoints)
    loaded = meter.measure("resume", lambda: learner.load_latest(checkpoints, RUN))
    assert loaded["name"] == "step_000001", loaded
    learner.close()
    pipe.send_bytes(json.dumps(meter.phases).encode())


def start_receiver(learner: Any, config: Config) -> Any:
    """A process that receives the weights of two syncs, as a rollout worker does."""
    from benchmarks.weight_sync import receive

    rendezvous = learner.open_epoch(1, 1)
    arguments = (rendezvous, 1, learner._specs, config.sync, 2)
    process = multiprocessing.get_context("spawn").Process(target=receive, args=arguments)
    process.start()
    return process


def drop_cache(folder: Path) -> None:
    """Have the files below `folder` read from the disk the next time."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
