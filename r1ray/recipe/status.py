"""Status of each stage, from the files on disk: hashes of inputs and outputs, and fingerprints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from r1ray.errors import ConfigError
from r1ray.models.folder import model_hash
from r1ray.recipe.folder import Lineage, StageAttempt
from r1ray.recipe.references import StageInput
from r1ray.recipe.tasks import Task

State = Literal["done", "stale", "interrupted", "pending"]

_CHUNK = 1 << 20
_PROMPT_FILES = (
    "*token*.json",
    "*.tiktoken",
    "tokenizer.model",
    "vocab.*",
    "merges.txt",
    "chat_template*",
    "additional_chat_templates/*",
    "generation_config.json",
)
"""Files of a model folder that determine prompts and stop tokens: tokenizer, special tokens, chat templates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus:
    """Status of one stage. Producer: `assess`. Consumers: preflight, runner, plan.

    done: skipped. interrupted: resumed, or started again if its kind cannot resume. stale: set aside
    and run again. pending: has not been started.
    """

    state: State
    reason: str = ""  # what changed or is missing, unless the stage is done
    input_missing: bool = False  # an input from outside the recipe does not exist
    inputs: Mapping[str, str] | None = None  # reference -> digest; None: not all inputs exist yet
    lineage: Lineage | None = None  # of a stage that was done, stale or not
    attempt: StageAttempt | None = None  # of a stage that was started


def assess(task: Task, waits_for: str | None = None) -> StageStatus:
    """Return the status of `task`. `waits_for` names a stage that must run first because `task` reads its output.

    Raises IntegrityError for damaged records, ConfigError if an input from outside does not exist.
    """
    lineage = Lineage.read(task.folder)
    attempt = StageAttempt.read(task)
    if waits_for is not None:
        reason = f"after {waits_for}"
        if lineage or attempt:
            return StageStatus(state="stale", reason=reason, lineage=lineage, attempt=attempt)
        return StageStatus(state="pending", reason=reason)
    inputs = {item.reference: input_digest(item) for item in task.inputs}
    if lineage is not None:
        return _assess_finished(task, lineage, attempt, inputs)
    if attempt is None:
        reason = "its folder contains something else" if task.folder.exists() else ""
        return StageStatus(state="stale" if reason else "pending", reason=reason, inputs=inputs)
    if not task.folder.exists():
        return StageStatus(state="pending", inputs=inputs)
    reason = _changed(attempt.fingerprint, task.fingerprint) or _inputs_changed(attempt.inputs, inputs)
    if reason and _same_samples(task, attempt.fingerprint, attempt.inputs, inputs):
        return _keep_samples(task, attempt, inputs, reason)
    state: State = "stale" if reason else "interrupted"
    return StageStatus(state=state, reason=reason, inputs=inputs, attempt=attempt)


def _assess_finished(
    task: Task, lineage: Lineage, attempt: StageAttempt | None, inputs: Mapping[str, str]
) -> StageStatus:
    digests = {reference: entry["digest"] for reference, entry in lineage.inputs.items()}
    reason = _changed(lineage.fingerprint, task.fingerprint) or _inputs_changed(digests, inputs)
    reason = reason or _output_changed(task, lineage)
    if reason and _same_samples(task, lineage.fingerprint, digests, inputs):
        return _keep_samples(task, attempt, inputs, reason)
    state: State = "stale" if reason else "done"
    return StageStatus(state=state, reason=reason, inputs=inputs, lineage=lineage, attempt=attempt)


def _keep_samples(task: Task, attempt: StageAttempt | None, inputs: Mapping[str, str], reason: str) -> StageStatus:
    attempts = attempt.attempts if attempt else []
    again = StageAttempt(fingerprint=task.fingerprint, inputs=inputs, attempts=attempts)
    return StageStatus(state="interrupted", reason=f"{reason}; its samples are kept", inputs=inputs, attempt=again)


def missing_inputs(task: Task) -> list[StageInput]:
    """Return the inputs from outside the recipe that do not exist."""
    return [item for item in task.inputs if item.stage is None and not item.hub and not item.path.exists()]


def assess_all(tasks: tuple[Task, ...], *, fresh: bool = False) -> dict[str, StageStatus]:
    """Return the status of each stage by name. A stage that reads from one that is not done is stale or pending.

    `fresh`: the status after the folder is set aside. Records are not read then: another version may
    have written them.
    """
    found: dict[str, StageStatus] = {}
    for task in tasks:
        if missing := missing_inputs(task):
            paths = [str(item.path) for item in missing]
            reason = f"{', '.join(paths)} {'does' if len(paths) == 1 else 'do'} not exist"
            found[task.name] = StageStatus(state="pending", reason=reason, input_missing=True)
        elif fresh:
            found[task.name] = StageStatus(state="pending")
        else:
            producers = (item.stage for item in task.inputs if item.stage is not None)
            found[task.name] = assess(task, next((p for p in producers if found[p].state != "done"), None))
    return found


def input_digest(item: StageInput) -> str:
    """Return the digest of the current content of `item` (see `digest`).

    A data set on the hub is not downloaded: its name is used. Raises ConfigError if it does not exist.
    """
    if item.hub and not item.path.exists():
        return f"hub:{item.reference}"
    if not item.path.exists():
        raise ConfigError(f"{item.reference}: {item.path} does not exist")
    return digest(item.path)


def digest(path: Path) -> str:
    """Return a hexadecimal digest of a model folder (weights, tokenizer, chat templates), a data folder or a file.

    Hidden files do not count. Raises ConfigError for an invalid model folder.
    """
    if (path / "config.json").is_file():
        # The same weights with other tokens or another chat template are another model.
        prompt_files = hashlib.blake2b(digest_size=8)
        for file in sorted({p for pattern in _PROMPT_FILES for p in path.glob(pattern) if p.is_file()}):
            _add_file(prompt_files, path, file)
        return f"{model_hash(path)}-{prompt_files.hexdigest()}"
    total = hashlib.blake2b(digest_size=16)
    if path.is_file():
        _add_bytes(total, path)
        return total.hexdigest()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        if not any(part.startswith(".") for part in file.relative_to(path).parts):
            _add_file(total, path, file)
    return total.hexdigest()


def _add_file(total: hashlib.blake2b, folder: Path, file: Path) -> None:
    """Hash the file's name inside the folder, its size and its bytes."""
    total.update(json.dumps([str(file.relative_to(folder)), file.stat().st_size]).encode())
    _add_bytes(total, file)


def _add_bytes(total: hashlib.blake2b, file: Path) -> None:
    with file.open("rb") as f:
        while chunk := f.read(_CHUNK):
            total.update(chunk)


def _same_samples(
    task: Task, fingerprint: Mapping[str, Any], digests: Mapping[str, str], inputs: Mapping[str, str]
) -> bool:
    """Return whether only the curation differs, so that existing samples can be kept."""
    if task.kind.name != "sample" or not task.folder.exists():
        return False

    def of_sampling(config: Mapping[str, Any]) -> dict[str, Any]:
        plain: dict[str, Any] = json.loads(json.dumps(config))
        return {key: value for key, value in plain.items() if not key.startswith("curation.")}

    early = [item.reference for item in task.inputs if not item.late]
    same = all(digests.get(reference) == inputs[reference] for reference in early)
    return same and of_sampling(fingerprint["config"]) == of_sampling(task.fingerprint["config"])


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return the first difference between two fingerprints; empty if they are equal."""
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
    return f"{changed[0]} changed" if changed else "" if set(old) == set(new) else "its list of inputs changed"


def _output_changed(task: Task, lineage: Lineage) -> str:
    if not task.output.exists():
        return f"{task.kind.output} was deleted"
    return "" if digest(task.output) == lineage.output["digest"] else f"{task.kind.output} was modified"
