"""How much a weight sync sends if it sends differences (`sync.encoding: delta`), from real training steps on the CPU.

    python -m benchmarks.delta [--model 0.5B] [--steps 5] [--lr 1e-6] [--write]

A random bfloat16 model of one of the sizes of `benchmarks.learner_io` is trained for some steps on random groups by one
rank at ZeRO 1, and published to one receiver after each. The first transfer is whole. A row of the table is a step: the
share of the values that it changed, the bytes of the sync beside those of the whole weights, and its seconds. Each
transfer must arrive with the sender's digest, which both ends compute of the whole weights.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.learner_io import DEADLINE_S, SIZES, make_config, make_model
from r1ray.config.schema import Config
from r1ray.transport.channel import Rendezvous
from r1ray.transport.plan import TensorSpec

GROUPS = 2
HEADS = ("step", "values changed, %", "bytes sent, %", "seconds")


def receiver_main(
    pipe: Connection, rendezvous: Rendezvous, specs: list[TensorSpec], config: Config, transfers: int
) -> None:
    """Receive so many transfers, and report the digest of each."""
    from benchmarks.weight_sync import joining, take

    receiver = joining(rendezvous, 1, "")
    for _ in range(transfers):
        take(receiver, specs, config.sync)
        received = receiver.received()
        assert received is not None
        pipe.send_bytes(received.digest.encode())
        receiver.release()


def copies_of(model: Any) -> list[Any]:
    """Copies of all weights."""
    return [parameter.detach().clone() for parameter in model.parameters()]


def measured(config: Config, steps: int) -> list[list[float]]:
    """The rows of the table."""
    from benchmarks.groups import make_manifest
    from benchmarks.learner import make_groups
    from learner.policy import PolicyRank
    from r1ray.codec import pack_scored
    from r1ray.models.folder import read_shape

    groups = make_groups(GROUPS * steps, read_shape(Path(config.model.path)).vocabulary)
    payloads = {g.rollout.group_id: pack_scored(g) for g in groups}
    rank = PolicyRank(config=config, rank=0, fetch=lambda ids: [payloads[i] for i in ids])
    rank.setup("127.0.0.1", 0)
    ours, theirs = multiprocessing.Pipe()
    arguments = (theirs, rank.open_epoch(1, 1), rank._specs, config, steps + 1)
    process = multiprocessing.get_context("spawn").Process(target=receiver_main, args=arguments)
    process.start()

    def publish(version: int) -> tuple[int, float]:
        sent = rank.publish(version, None)
        assert ours.poll(DEADLINE_S), "the receiver did not answer"
        assert ours.recv_bytes().decode() == sent.digest, "other weights arrived than were sent"
        return sent.wire_bytes, sent.seconds

    rows, (whole, _) = [], publish(0)
    for step in range(steps):
        before = copies_of(rank._engine.module)
        rank.train_step(make_manifest(step, groups[step * GROUPS : (step + 1) * GROUPS]))
        pairs = list(zip(before, rank._engine.module.parameters(), strict=True))
        changed = sum(int((old != new).sum()) for old, new in pairs) / sum(old.numel() for old in before)
        del before, pairs
        sent, seconds = publish(step + 1)
        rows.append([step, 100 * changed, 100 * sent / whole, seconds])
    process.join(60)
    rank.close()
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__, repeats=1)
    parser.add_argument("--model", choices=SIZES, default="0.5B")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--lr", type=float, default=1e-6)
    parser.set_defaults(stage=1, dtype="bfloat16", kl=0.0, micro_batch_tokens=1024)
    options = parser.parse_args()
    session = measure.start("delta", options)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        builder = multiprocessing.get_context("spawn").Process(target=make_model, args=(model, options.model))
        builder.start()
        builder.join()
        config = make_config(model, 1, options)
        config.sync.encoding, config.learner.groups_per_step = "delta", GROUPS
        config.learner.optimizer.lr, config.run.steps = options.lr, 10 * options.steps
        rows = measured(config, options.steps)
    print(measure.table(HEADS, rows))
    session.finish({"model": options.model, "lr": options.lr, "heads": HEADS, "rows": rows}, {})


if __name__ == "__main__":
    main()
