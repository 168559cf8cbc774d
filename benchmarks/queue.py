"""The replay queue: groups per second that are on the disk, and how long a put waits, against simpler stores.

    python -m benchmarks.queue [--ray] [--write]

    ledger   `QueueOwner.put` in one process: group commit, checks, one row and one payload per group
    sqlite   the same payloads as rows of a bare SQLite table, one transaction each (WAL, synchronous=FULL)
    actor    with --ray: the queue as a Ray actor, called by many tasks of this process
    ray      with --ray: `ray.util.queue.Queue`, called in the same way; it keeps nothing on the disk

Each by number of clients, which put one group after the other as fast as they can; then `ledger` at a fixed pace, and
by the number of scored groups that are in it before. A put's wait is that of its caller; at a pace it begins when the
put is due.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from actors.queue import QueueOwner
from benchmarks import measure
from benchmarks.groups import make_completion, make_group, make_prompt
from r1ray.codec import pack_scored, unpack_scored
from r1ray.config.sections.run import RunConfig
from r1ray.ledger.ledger import Ledger
from r1ray.ledger.records import LedgerSettings
from r1ray.run.ledger import LedgerPlace
from r1ray.types import Score, ScoredGroup

CLIENTS = (1, 8, 64)
DEPTHS = (10, 1_000, 10_000, 100_000)
PACE = 2_000
"""Puts a second at a fixed pace."""
PUTS = 512
"""Groups of one measurement."""
COMPLETIONS, TOKENS = 8, 30
RUN = "benchmark"
SETTINGS = LedgerSettings(groups_per_step=8, max_staleness=10**9, lease_timeout_s=1e9, max_attempts=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One measurement of `PUTS` puts."""

    per_s: float
    p50_ms: float
    p99_ms: float


def group(group_id: str) -> bytes:
    """A packed group of 8 completions of 30 tokens."""
    prompt = make_prompt(int(group_id.partition("-")[0]), token_ids=range(20))
    completions = [make_completion(TOKENS, text="x" * 60) for _ in range(COMPLETIONS)]
    scores = tuple(Score(reward=float(i % 2), parts={}, error=None) for i in range(COMPLETIONS))
    packed = pack_scored(ScoredGroup(rollout=make_group(group_id, prompt, completions), scores=scores))
    assert unpack_scored(packed).rollout.group_id == group_id
    return packed


@contextmanager
def queue(depth: int = 0) -> Iterator[tuple[QueueOwner, LedgerPlace]]:
    """A queue on the disk of the working directory that already has `depth` scored groups."""
    with tempfile.TemporaryDirectory(prefix="r1ray-queue-", dir=".") as scratch:
        place = LedgerPlace.of(RunConfig(ledger_on_network=True), Path(scratch), RUN)
        with closing(Ledger.create(place.file, SETTINGS, run_id=RUN)) as ledger:
            for first in range(0, depth, 1000):
                leases = ledger.lease("before", 0, min(1000, depth - first))
                ledger.put_many([group(lease.group_id) for lease in leases])
        owner = QueueOwner(place, SETTINGS, RUN)
        try:
            yield owner, place
        finally:
            asyncio.run(owner.close())


async def put_by_clients(put: Callable[[bytes], Any], payloads: list[bytes], clients: int) -> Measured:
    """Each client puts one group after the other, until all are stored."""
    waiting, waits = iter(payloads), []

    async def client() -> None:
        for payload in waiting:
            began = time.perf_counter()
            await put(payload)
            waits.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return measured(waits, time.perf_counter() - began)


async def put_at_pace(put: Callable[[bytes], Any], payloads: list[bytes]) -> Measured:
    """PACE puts a second, whether those before are stored or not."""
    waits, began = [], time.perf_counter()

    async def one(number: int, payload: bytes) -> None:
        due = began + number / PACE
        await asyncio.sleep(due - time.perf_counter())
        await put(payload)
        waits.append(time.perf_counter() - due)

    await asyncio.gather(*(one(number, payload) for number, payload in enumerate(payloads)))
    return measured(waits, time.perf_counter() - began)


def measured(waits: list[float], seconds: float) -> Measured:
    """Of puts that took `seconds` together."""
    waits.sort()
    half, most = (waits[int(len(waits) * share)] * 1e3 for share in (0.5, 0.99))
    return Measured(per_s=len(waits) / seconds, p50_ms=half, p99_ms=most)


async def leased(owner: QueueOwner) -> list[bytes]:
    """The payloads of `PUTS` groups that are leased now."""
    return [group(lease.group_id) for lease in await owner.lease("w", 0, PUTS, [], 0.0)]


def ledger(owner: QueueOwner, clients: int | None) -> Measured:
    """Puts into the queue's own process, by so many clients or at the pace."""

    async def run() -> Measured:
        payloads = await leased(owner)

        def put(payload: bytes) -> Any:
            return owner.put([payload], True)

        return await (put_at_pace(put, payloads) if clients is None else put_by_clients(put, payloads, clients))

    return asyncio.run(run())


def bare_sqlite(db: sqlite3.Connection, payloads: list[bytes]) -> Measured:
    """Rows of a bare table, one transaction each."""

    async def put(payload: bytes) -> None:
        db.execute("INSERT INTO t (payload) VALUES (?)", (payload,))

    return asyncio.run(put_by_clients(put, payloads, 1))


def by_clients(repeats: int) -> dict[str, list[Measured]]:
    """`repeats` measurements of each variant, interleaved."""
    found: dict[str, list[Measured]] = {}
    with queue() as (owner, place), closing(sqlite3.connect(place.run_dir / "bare", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, payload BLOB)")
        bare = [group(f"{i}-1") for i in range(PUTS)]
        for repeat in range(repeats):
            variants: dict[str, Callable[[], Measured]] = {
                **{f"ledger, {n} clients": partial(ledger, owner, n) for n in CLIENTS},
                f"ledger, {PACE:,} a second": partial(ledger, owner, None),
                "sqlite, 1 client": lambda: bare_sqlite(db, bare),
            }
            for name in list(variants)[:: 1 if repeat % 2 else -1]:
                found.setdefault(name, []).append(variants[name]())
    return found


def by_ray(repeats: int) -> dict[str, list[Measured]]:
    """The queue as an actor and Ray's own queue, interleaved; each call is a task of this process."""
    import ray
    from ray.util.queue import Queue

    found: dict[str, list[Measured]] = {}
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        with tempfile.TemporaryDirectory(prefix="r1ray-queue-", dir=".") as scratch:
            place = LedgerPlace.of(RunConfig(ledger_on_network=True), Path(scratch), RUN)
            Ledger.create(place.file, SETTINGS, run_id=RUN).close()
            actor = ray.remote(QueueOwner).options(num_cpus=0, max_concurrency=1000).remote(place, SETTINGS, RUN)
            other = Queue(actor_options={"num_cpus": 0})

            async def measure_one(name: str, clients: int) -> Measured:
                leases = await actor.lease.remote("w", 0, PUTS, [], 0.0)
                payloads = [group(lease.group_id) for lease in leases]
                if name == "actor":
                    return await put_by_clients(lambda p: actor.put.remote([p], True), payloads, clients)
                measured = await put_by_clients(other.put_async, payloads, clients)
                await actor.put.remote(payloads, True)  # nothing stays leased
                return measured

            for repeat in range(repeats):
                for clients in CLIENTS:
                    for name in ("actor", "ray")[:: 1 if repeat % 2 else -1]:
                        one = asyncio.run(measure_one(name, clients))
                        found.setdefault(f"{name}, {clients} clients", []).append(one)
    finally:
        ray.shutdown()
    return found


def by_depth(repeats: int) -> dict[str, list[Measured]]:
    """Puts of 64 clients, by groups that are in the ledger before."""
    found: dict[str, list[Measured]] = {}
    for depth in DEPTHS:
        with queue(depth) as (owner, _):
            found[f"ledger, 64 clients, depth {depth:,}"] = [ledger(owner, 64) for _ in range(repeats)]
    return found


def main() -> None:
    """Measure, print the table, and store the result with --write."""
    parser = measure.parser(__doc__, repeats=5)
    parser.add_argument("--ray", action="store_true", help="also measure the queue behind Ray, and Ray's own queue")
    arguments = parser.parse_args()
    session = measure.start("queue", arguments)
    size = len(group("0-1"))
    found = by_clients(session.repeats) | by_depth(session.repeats)
    if arguments.ray:
        found |= by_ray(session.repeats)
    rows = []
    result: dict[str, Any] = {"bytes": size, "puts": PUTS}
    for name, many in found.items():
        rate = measure.summarise([m.per_s for m in many])
        p50, p99 = (measure.summarise([getattr(m, key) for m in many]) for key in ("p50_ms", "p99_ms"))
        rows.append((name, f"{rate.median:,.0f}", f"{rate.median * size / 1e6:.1f}", p50.median, p99.median))
        result[name] = {"per_s": rate.to_json(), "p50_ms": p50.to_json(), "p99_ms": p99.to_json()}
    print(measure.table(("store", "groups/s", "MB/s", "p50 ms", "p99 ms"), rows))
    pairs = [(f"ledger, {n} clients", "sqlite, 1 client") for n in CLIENTS]
    pairs += [(f"actor, {n} clients", f"ray, {n} clients") for n in CLIENTS] if arguments.ray else []
    claims = {f"{a} / {b}": measure.ratio(*([m.per_s for m in found[name]] for name in (a, b))) for a, b in pairs}
    for name, claim in claims.items():
        print(f"{name}: {claim}")
    session.finish(result, claims)


if __name__ == "__main__":
    main()
