"""The ledger as the control loop sees it: opening it at the start of a run, and watching its copies."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from r1ray.control.handles import Handle, QueueApi
from r1ray.control.outages import QueueClient
from r1ray.errors import R1RayError
from r1ray.ledger.records import LedgerOpened, LedgerStatus
from r1ray.run.folder import RunFolder
from r1ray.run.ledger import record_home
from r1ray.util.files import read_json
from r1ray.util.formatting import duration

OLD = 3.0
"""A copy older than so many times `run.ledger_copy_every_s` is reported."""


def open_ledger(queue: QueueClient, folder: RunFolder, *, on_event: Callable[..., None]) -> None:
    """Have the queue open its ledger, and report one that was restored: what it knows, and what is lost.

    Raises ConfigError, IntegrityError or RetryBudgetExhausted.
    """
    earlier = read_json(folder.status) if folder.status.exists() else {}  # the first call replaces it
    opened = queue.call(QueueApi.open)
    record_home(folder, opened)
    if opened.source != "restored":
        return
    if opened.copied_at is None:
        on_event("ledger_moved", message=f"the ledger was moved to {opened.path} on {opened.host} (run.ledger_dir)")
        return
    lost = _lost(opened, earlier)
    on_event(
        "ledger_restored",
        message=_restored(opened, earlier, lost),
        copied_at=opened.copied_at,
        bound_steps=opened.bound_steps,
        lost_groups=lost,
    )


def _lost(opened: LedgerOpened, earlier: Mapping[str, Any]) -> int | None:
    """Groups that the lost ledger had and its copy has not, by the last status of the run; None if it had none."""
    queue = earlier.get("queue")
    if queue is None:
        return None
    return max(0, sum(int(queue[state]) for state in ("scored", "taken", "trained")) - opened.stored)


def _restored(opened: LedgerOpened, earlier: Mapping[str, Any], lost: int | None) -> str:
    assert opened.copied_at is not None
    at = time.strftime("%F %T", time.localtime(opened.copied_at))
    before = ""
    if "updated" in earlier:
        before = f" ({duration(max(0.0, float(earlier['updated']) - opened.copied_at))} before the end of the run)"
    groups = f"at least {lost} groups" if lost else "groups"
    return (
        f"the ledger was gone; {opened.path} on {opened.host} is restored from the copy of {at}{before}, which knows "
        f"{opened.bound_steps} steps; {groups} scored after it are sampled again, unless a checkpoint was trained on "
        "them"
    )


class CopyMonitor:
    """Reports copies of the ledger that fail or become old, once for each episode; the run continues."""

    def __init__(self, every_s: float, *, on_event: Callable[..., None]) -> None:
        self._every_s = every_s
        self._event = on_event
        self._reported = ""  # kind of the present episode

    def look(self, status: LedgerStatus) -> str:
        """What is wrong with the copies in one sentence; "" if nothing is."""
        copy = status.copy
        if copy is None:
            return ""
        age = "there is no copy yet" if copy.age_s is None else f"the last one is {duration(copy.age_s)} old"
        kind = message = ""
        if copy.problem is not None:
            kind = "ledger_copy_failed"
            message = f"the ledger cannot be copied into the run folder, {age}; training continues: {copy.problem}"
        elif copy.age_s is not None and copy.age_s > OLD * self._every_s:
            kind = "ledger_copy_old"
            message = f"the copy of the ledger in the run folder is old: {age} (run.ledger_copy_every_s)"
        if kind and kind != self._reported:
            self._event(kind, message=message, age_s=copy.age_s)
        elif self._reported and not kind:
            self._event("ledger_copy_recovered", message="the copies of the ledger succeed again", age_s=copy.age_s)
        self._reported = kind
        return message


def finish_copies(queue: Handle[QueueApi], deadline_s: float, *, on_event: Callable[..., None]) -> None:
    """Wait for a last copy of the ledger at the end of a run; report a failure,
    which changes nothing in the outcome.
    """
    problem = None
    try:
        made = queue.start(QueueApi.finish_copy).result(timeout=deadline_s)
        problem = None if made is None else made.problem
    except TimeoutError:
        problem = f"it took longer than {deadline_s:g} s (deadlines.shutdown_s)"
    except R1RayError as e:
        problem = str(e)
    if problem is not None:
        message = f"the last copy of the ledger was not written; the ledger itself is complete: {problem}"
        on_event("ledger_copy_failed", message=message, age_s=None)
