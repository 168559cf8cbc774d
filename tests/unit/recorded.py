"""A recorded run, on whose groups another run trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from r1ray.ledger import Ledger
from r1ray.run.recording import Recording, Replay
from tests.synthetic_run import write_run
from tests.unit.ledger_support import Clock, payload, rules

RUN_ID = "bus-1a2b3c"
"""The run that `write_run` writes."""
B = 2


def record(
    folder: Path,
    *,
    steps: int = 4,
    rewards: Callable[[int], Sequence[float]] = lambda index: (0.0, 1.0),
    keep: int = 99,
) -> Path:
    """A finished run of `steps` saved steps of two groups; within a step the later prompt completes first.

    Step 0 has the groups 1-1, 0-1; step 1 has 3-1, 2-1; and so on. `rewards`: of the group of a prompt index.
    """
    write_run(folder, steps=steps, evaluate_every=0)
    settings = rules(keep_payload_steps=keep)
    ledger = Ledger.create(folder / "ledger.sqlite", settings, run_id=RUN_ID, clock=Clock())
    extend(ledger, steps, rewards)
    ledger.close()
    return folder


def extend(ledger: Ledger, steps: int, rewards: Callable[[int], Sequence[float]] = lambda index: (0.0, 1.0)) -> None:
    """Train further steps, each on groups of its own policy, and save each."""
    first = ledger.status().bound_steps
    for step in range(first, first + steps):
        for lease in reversed(ledger.lease("rollout-0", step, B)):
            ledger.put(payload(lease.group_id, version=step, rewards=rewards(lease.index)))
        assert ledger.take(step) is not None
        ledger.commit(step + 1, f"step_{step + 1:06d}")


def replay_of(folder: Path, *, steps: int = 4, epochs: int = 1, first_step: int = 0) -> Replay:
    recording = Recording(run_id=RUN_ID, first_step=first_step, steps=steps, groups_per_step=B)
    return Replay(run_dir=str(folder), recording=recording, epochs=epochs)
