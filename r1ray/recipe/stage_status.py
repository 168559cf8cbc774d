"""What is done and what is not, by what is on the disk: hashes of inputs and outputs, and the meaning of each stage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from r1ray.recipe.digests import digest, read_digest
from r1ray.recipe.lineage import Lineage, StageAttempt
from r1ray.recipe.tasks import Read, Task

State = Literal["done", "stale", "begun", "to do"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus:
    """How a stage stands. Producer: `assess`. Consumers: runner, plan."""

    state: State
    why: str = ""  # where it is not done, what is missing or has changed
    lacks: bool = False  # an input from outside is not there
    inputs: Mapping[str, str] | None = None  # reference -> digest; None: not all inputs are there yet
    lineage: Lineage | None = None  # of a stage that was done, stale or not
    begun: StageAttempt | None = None  # of a stage that was started and has no lineage


def assess(task: Task, waits_for: str | None = None) -> StageStatus:
    """How `task` stands. `waits_for` names a stage whose output it reads and which is to be run first.

    done: skipped. begun: goes on inside, or from its beginning where its kind cannot. stale: its folder is set aside.
    Raises IntegrityError for records that cannot be read, ConfigError where an input from outside is not there.
    """
    lineage = Lineage.read(task.folder)
    begun = StageAttempt.read(task)
    if waits_for is not None:
        why = f"after {waits_for}"
        if lineage or begun:
            return StageStatus(state="stale", why=why, lineage=lineage, begun=begun)
        return StageStatus(state="to do", why=why)
    inputs = {read.reference: read_digest(read) for read in task.reads}
    if lineage is not None:
        why = _changed(lineage.fingerprint, task.fingerprint) or _inputs_changed(
            {reference: entry["digest"] for reference, entry in lineage.inputs.items()}, inputs
        )
        why = why or _output_changed(task, lineage)
        digests = {reference: entry["digest"] for reference, entry in lineage.inputs.items()}
        if why and _same_samples(task, lineage.fingerprint, digests, inputs):
            attempts = begun.attempts if begun else []
            again = StageAttempt(fingerprint=task.fingerprint, inputs=inputs, attempts=attempts)
            return StageStatus(state="begun", why=f"{why}; its samples stay", inputs=inputs, begun=again)
        state: State = "stale" if why else "done"
        return StageStatus(state=state, why=why, inputs=inputs, lineage=lineage, begun=begun)
    if begun is None:
        why = "its folder holds something else" if task.folder.exists() else ""
        return StageStatus(state="stale" if why else "to do", why=why, inputs=inputs)
    if not task.folder.exists():
        return StageStatus(state="to do", inputs=inputs)
    why = _changed(begun.fingerprint, task.fingerprint) or _inputs_changed(begun.inputs, inputs)
    if why and _same_samples(task, begun.fingerprint, begun.inputs, inputs):
        begun, why = (
            StageAttempt(fingerprint=task.fingerprint, inputs=inputs, attempts=begun.attempts),
            f"{why}; its samples stay",
        )
        return StageStatus(state="begun", why=why, inputs=inputs, begun=begun)
    return StageStatus(state="stale" if why else "begun", why=why, inputs=inputs, begun=begun)


def missing(task: Task) -> list[Read]:
    """What the stage reads from outside and is not there."""
    return [read for read in task.reads if read.stage is None and not read.hub and not read.path.exists()]


def waiting(task: Task, pending: Mapping[str, bool]) -> str | None:
    """The first stage that `task` reads and that is to be run; `pending` says so by name."""
    return next((r.stage for r in task.reads if r.stage is not None and pending.get(r.stage)), None)


def assess_all(tasks: tuple[Task, ...], *, fresh: bool = False) -> dict[str, StageStatus]:
    """How all stages stand; one that reads what is to be made anew is stale, one that lacks an input from outside says so.

    `fresh`: how they will stand when the folder is set aside. Its records are not read then: they may be another version's.
    """
    found: dict[str, StageStatus] = {}
    for task in tasks:
        pending = {name: standing.state != "done" for name, standing in found.items()}
        if lacking := missing(task):
            paths = [str(read.path) for read in lacking]
            why = f"{', '.join(paths)} {'is' if len(paths) == 1 else 'are'} not there"
            found[task.name] = StageStatus(state="to do", why=why, lacks=True)
        elif fresh:
            found[task.name] = StageStatus(state="to do")
        else:
            found[task.name] = assess(task, waiting(task, pending))
    return found


def _same_samples(
    task: Task, fingerprint: Mapping[str, Any], digests: Mapping[str, str], inputs: Mapping[str, str]
) -> bool:
    """Whether only the curation differs, so that the samples which are there need not be taken again."""
    if task.kind.name != "sample" or not task.folder.exists():
        return False

    def of_sampling(config: Mapping[str, Any]) -> dict[str, Any]:
        plain: dict[str, Any] = json.loads(json.dumps(config))
        return {key: value for key, value in plain.items() if not key.startswith("curation.")}

    early = [read.reference for read in task.reads if not read.late]
    same = all(digests.get(reference) == inputs[reference] for reference in early)
    return same and of_sampling(fingerprint["config"]) == of_sampling(task.fingerprint["config"])


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first thing that a stage now states differently; empty where there is none."""
    plain = json.loads(json.dumps(new))
    if old == plain:
        return ""
    for part in ("options", "config"):
        before, after = old.get(part, {}), plain.get(part, {})
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                return f"{key} changed"
    return "its command changed"


def _inputs_changed(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    changed = [reference for reference in new if old.get(reference) != new[reference]]
    return f"{changed[0]} changed" if changed else "" if set(old) == set(new) else "it reads something else"


def _output_changed(task: Task, lineage: Lineage) -> str:
    if not task.output.exists():
        return f"{task.kind.output} is gone"
    return "" if digest(task.output) == lineage.output["digest"] else f"{task.kind.output} was changed"
