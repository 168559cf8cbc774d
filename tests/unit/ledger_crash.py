"""Kills a small run at every point of its life and resumes it: `python -m tests.unit.ledger_crash MODE FOLDER`.

A process of its own, because it forks: each child drives the same fresh ledger until the fault of its turn kills it.
The parent then audits what is left, checks that nothing acknowledged is missing, drives the run to its end, and audits
again. Modes:

    statements   SIGKILL before the n-th SQL statement, BEGIN and COMMIT among them
    log          the kernel kills the process (SIGXFSZ) at the write that passes byte n of the log: a torn commit
    checkpoint   the same in the database file, while the log is copied into it
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from r1ray.ledger import Ledger, LedgerReader
from r1ray.run.audit import audit_run
from tests.unit.ledger_support import RUN, payload, rules, write_checkpoint

STEPS, EVERY = 4, 2
Say = Callable[[str, object], None]
Arm = Callable[[Ledger], None]


def drive(folder: Path, say: Say, arm: Arm) -> None:
    """The run, as its controller goes about it; begins or resumes. `say` reports what has been acknowledged."""
    with closing(Ledger.open(folder / "ledger.sqlite", run_id=RUN)) as ledger:
        arm(ledger)
        saved = max((int(p.name[5:]) for p in folder.glob("checkpoints/step_*")), default=0)
        ledger.release_worker("w")
        ledger.release_worker("straggler")
        ledger.commit(saved, f"step_{saved:06d}")
        ledger.rollback(saved)
        ledger.publish(saved, 0, "digest")
        late = ledger.lease("straggler", 0, 1)  # nothing after a resume from a later policy
        for step in range(saved, STEPS):
            if step == 2:
                ledger.put_many([payload(x.group_id, version=0) for x in late])  # too old: the prompt is reserved for
            while (manifest := ledger.take(step)) is None:
                leased = ledger.lease("w", step, 3)
                groups = [x.group_id for x in ledger.redeliver_unacknowledged("w", [], 3)]
                assert groups == [x.group_id for x in leased]
                if groups and groups[0].endswith("-1"):  # every new prompt that comes first fails once
                    ledger.put(payload(groups.pop(0), version=step, error="VerifierError"))
                if groups:
                    ledger.put(payload(groups[0], version=step))
                    say("put", groups[0])
                    ledger.put_many([payload(g, version=step) for g in groups])  # the first for the second time
                    say("put", groups[-1])
            say("take", [step, [g.group_id for g in manifest.groups]])
            if (step + 1) % EVERY == 0:
                write_checkpoint(folder, step + 1)
                ledger.commit(step + 1, f"step_{step + 1:06d}")
                say("commit", step + 1)


def kill_at_statement(n: int) -> Arm:
    left = n

    def count(_: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda ledger: ledger._db.set_trace_callback(count)


def kill_at_byte(n: int, pages_in_log: int) -> Arm:
    def arm(ledger: Ledger) -> None:
        ledger._db.execute(f"PRAGMA wal_autocheckpoint = {pages_in_log}")
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))

    return arm


def run_and_die(folder: Path, arm: Arm) -> tuple[int, list[tuple[str, Any]]]:
    """The signal that killed the child (0: it came to the end), and what it had acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        drive(folder, lambda *said: os.write(writing, json.dumps(said).encode() + b"\n") and None, arm)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        acknowledged = [tuple(json.loads(line)) for line in said]
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"the child failed with {status}"
    return (os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0), acknowledged


def check_and_resume(folder: Path, acknowledged: list[tuple[str, Any]]) -> None:
    left = audit_run(folder)
    assert left.ok, left.violations
    with closing(LedgerReader.open(folder / "ledger.sqlite")) as reader:
        state = {g.group_id: g.state for g in reader.groups()}
        trained = reader.status().trained_steps
    for what, said in acknowledged:
        if what == "put":
            assert state[said] in ("scored", "taken", "trained")
        if what == "commit":
            assert trained >= said
    taken = [said for what, said in acknowledged if what == "take"]
    drive(folder, lambda what, said: taken.append(said) if what == "take" else None, lambda _: None)
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as db:
        bound = db.execute("SELECT step, group_id FROM groups WHERE step IS NOT NULL ORDER BY step, slot").fetchall()
    for step, groups in taken:
        assert groups == [g for s, g in bound if s == step], f"step {step} got another batch after the crash"
    whole = audit_run(folder)
    assert whole.ok, whole.violations
    assert {r.what: r.groups for r in whole.rows if not r.detail}["trained"] == STEPS * rules().groups_per_step


def faults(mode: str, folder: Path, log_bytes: int, first_size: int, last_size: int) -> Iterator[Arm]:
    if mode == "statements":
        n = 0
        while True:  # until a child comes to its end
            yield kill_at_statement(n)
            n += 1
    elif mode == "log":
        yield from (kill_at_byte(n, 1000) for n in range(0, log_bytes, log_bytes // 40))
    else:
        yield from (kill_at_byte(n, 2) for n in range(first_size, last_size, 512))


def main(mode: str, folder: Path) -> None:
    fresh = folder / "fresh"
    (fresh / "checkpoints").mkdir(parents=True)
    Ledger.create(fresh / "ledger.sqlite", rules(), run_id=RUN).close()
    shutil.copytree(fresh, folder / "measure")
    sizes: list[int] = []
    log = folder / "measure" / "ledger.sqlite-wal"
    drive(folder / "measure", lambda *_: sizes.append(log.stat().st_size), lambda _: None)
    ends = (fresh / "ledger.sqlite", folder / "measure" / "ledger.sqlite")
    killed = 0
    for arm in faults(mode, folder, sizes[-1], *(p.stat().st_size for p in ends)):
        run = folder / "run"
        shutil.copytree(fresh, run)
        died, acknowledged = run_and_die(run, arm)
        check_and_resume(run, acknowledged)
        shutil.rmtree(run)
        killed += died != 0
        if mode == "statements" and not died:
            break
    print(json.dumps({"faults": killed}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
