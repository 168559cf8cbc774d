"""Terminal lines for the events that a user should not have to look for in events.jsonl."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from r1ray.run.view import View
from r1ray.util.formatting import one_line

NOTICES = {
    "replaying": "{message}",
    "groups_dropped": "{message}",
    "scores_failed": "{message}",
    "worker_lost": "{worker} was lost: {reason}",
    "host_ends": "{worker} drains: its host is taken away in {seconds:.0f} s",
    "worker_stale": "{worker} missed a weight sync and continues with its old policy: {reason}",
    "sync_retried": "weight sync of policy {version} was repeated because {process} failed: {reason}",
    "actor_lost": "{actor} was lost: {reason}",
    "learner_lost": "{message}",
    "learner_waiting": "for {seconds:.0f} s the learner has waited (up to {deadline_s:g} s) for {message}",
    "rolled_back": "{message}; training returns to policy {to_policy}",
    "checkpoint_skipped": "{message}",
    "ledger_restored": "{message}",
    "ledger_moved": "{message}",
    "ledger_reconciled": "{message}",
    "ledger_copy_failed": "{message}",
    "ledger_copy_old": "{message}",
    "ledger_copy_recovered": "{message}",
    "stalled": "nothing has moved for {seconds:.0f} s: see `r1ray status` and stall-*.txt in the run folder",
    "heldout_bound": "{message}",
    "reward_hacking": "{metric} has been above {bound:g} for {steps} steps (now {value:.3g}): possible reward hacking",
}
"""Kind of event -> its line, with the fields of the event."""


REPEAT_S = 60.0
"""A process that fails again and again in the same way prints one line in this time; events.jsonl has each failure."""


def notice(event: Mapping[str, Any]) -> str | None:
    """The line for an event; None if its kind has none."""
    template = NOTICES.get(event["kind"])
    return None if template is None else one_line(template.format_map(event))


def notices_to(view: View) -> Callable[[Mapping[str, Any]], None]:
    """A callback for `MetricsWriter(on_event=...)` that prints notices in `view`, each text once in REPEAT_S."""
    printed: dict[str, float] = {}

    def show(event: Mapping[str, Any]) -> None:
        line = notice(event)
        if line is not None and event["time"] - printed.get(line, float("-inf")) >= REPEAT_S:
            printed[line] = event["time"]
            view.line(line)

    return show
