"""What the ledger's tests share: a clock set by hand, settings, and packed groups."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.groups import make_completion, make_group, make_prompt
from r1ray.codec import pack_scored
from r1ray.config.sections.run import RunConfig
from r1ray.ledger import Ledger, LedgerSettings
from r1ray.run.checkpoints import FORMAT, MANIFEST, TRAINER, fingerprints
from r1ray.run.ledger import LedgerPlace
from r1ray.types import Score, ScoredGroup

RUN = "run-1"


@contextmanager
def fast_folder() -> Iterator[Path]:
    """A temporary folder in memory, where there is one: a kill loses as little as on a disk,
    and fsync costs nothing.
    """
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def faults_survived(driver: str, mode: str) -> int:
    """How many faults the module `driver` injected in a process of its own, its invariants having held after each."""
    with fast_folder() as folder:
        done = subprocess.run(
            [sys.executable, "-m", f"tests.unit.{driver}", mode, str(folder)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},  # it forks
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    faults: int = json.loads(done.stdout)["faults"]
    return faults


class Clock:
    """Seconds since the epoch, set by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def place_in(run_dir: Path, *, outside: Path | None = None, every_s: float = 1000.0) -> LedgerPlace:
    """A ledger in the run folder, or in the folder `outside` with copies in the run folder."""
    run = RunConfig(ledger_dir=None if outside is None else str(outside), ledger_copy_every_s=every_s)
    return LedgerPlace.of(run, run_dir, RUN)


def rules(**changes: object) -> LedgerSettings:
    """B = 2, s = 1, leases of 60 s, two attempts; `changes` replace."""
    known: dict[str, object] = {"groups_per_step": 2, "max_staleness": 1, "lease_timeout_s": 60.0, "max_attempts": 2}
    return LedgerSettings(**{**known, **changes})  # type: ignore[arg-type]


def new_ledger(folder: Path, clock: Clock | None = None, **changes: object) -> Ledger:
    return Ledger.create(folder / "ledger.sqlite", rules(**changes), run_id=RUN, clock=clock or Clock())


def payload(
    group_id: str,
    *,
    version: int = 0,
    rewards: Sequence[float] = (0.0, 1.0),
    error: str | None = None,
    text: str = "<think></think>",
    index: int | None = None,
    newest: int = 0,
    tokens: int = 3,
) -> bytes:
    """The packed group `group_id`, sampled under policy `version`, its end under `newest` if that is a later one.

    With `error` its first score failed. Completion i has `tokens` + i tokens.
    """
    if index is None:
        index = int(group_id.split("-")[0])
    completions = [
        make_completion(n, text=text, spans=[(version, 0, 2), (max(version, newest), 2, n)])
        for n in range(tokens, tokens + len(rewards))
    ]
    rollout = make_group(group_id, make_prompt(index, token_ids=range(5)), completions, timings={"queued": 0.1})
    scores = tuple(
        Score(reward=r, parts={"accuracy": r}, error=error if i == 0 else None) for i, r in enumerate(rewards)
    )
    return pack_scored(ScoredGroup(rollout=rollout, scores=scores))


def write_checkpoint(run_dir: Path, policy_version: int, run_id: str = RUN) -> None:
    """The smallest whole checkpoint of a policy."""
    aside = run_dir / "checkpoints" / "aside"
    aside.mkdir(parents=True)
    (aside / TRAINER).write_text(json.dumps({"policy_version": policy_version, "run_id": run_id}))
    files = fingerprints([aside / TRAINER])
    (aside / MANIFEST).write_text(json.dumps({"format": FORMAT, "files": files}))
    aside.rename(aside.with_name(f"step_{policy_version:06d}"))


def ids(found: Iterable[Any]) -> list[str]:
    """The group ids of leases, summaries or records."""
    return [x.group_id for x in found]


def train(ledger: Ledger, steps: int, *, checkpoint_every: int = 1) -> None:
    """Steps from the next one on, each from fresh groups of its own policy."""
    size = ledger.settings.groups_per_step
    first = ledger.status().bound_steps
    for step in range(first, first + steps):
        for lease in ledger.lease("w0", step, size):
            ledger.put(payload(lease.group_id, version=step))
        assert ledger.take(step) is not None
        if (step + 1) % checkpoint_every == 0:
            ledger.commit(step + 1, f"step_{step + 1:06d}")
