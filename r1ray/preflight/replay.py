"""Hold a recorded run against the run that is to train on its groups (`r1ray train --replay RUN`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from r1ray.config.identity import changes
from r1ray.config.load import LoadedConfig, load_config
from r1ray.config.problems import Problem, problem, refuse, show
from r1ray.config.schema import Config
from r1ray.data.contents import contents, differences
from r1ray.data.vocab import vocab_hash
from r1ray.errors import ConfigError, IntegrityError
from r1ray.ledger.reader import LedgerReader
from r1ray.models.folder import model_hash
from r1ray.run.folder import RunFolder
from r1ray.run.ledger import open_ledger
from r1ray.run.recording import Recording, check_same
from r1ray.util.files import read_json

KEY = "replay.run"

SAMPLING_KEYS = (
    "rewards",
    "data.train",
    "data.template",
    "data.template_args",
    "data.system_prompt",
    "data.max_prompt_tokens",
    "model.max_length",
    "rollout.group_size",
    "rollout.temperature",
    "rollout.top_p",
    "rollout.max_new_tokens",
    "rollout.length_schedule",
)
"""Keys that say how groups are sampled and scored: those of a replay are the recorded run's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """A recorded run that can be trained on."""

    recording: Recording
    text: str  # what it offers, in one sentence
    warning: str  # what to know of it; empty: nothing


def survey(loaded: LoadedConfig, model: Path, *, built: bool, begun: RunFolder | None) -> Survey:
    """What the run trains on, in the folder `replay.run`. Reads the recorded run and writes nothing.

    `model`: the folder to read instead of `model.path`; `built`: whether it has the weights. `begun`: the run to
    resume. Raises ConfigError with all problems, and IntegrityError if a resume finds another recording.
    """
    config = loaded.config
    folder = _recorded_run(config)
    if begun is not None and not begun.replay.exists():
        raise ConfigError(
            f"{KEY} = {folder.path}: the run in {begun.path} samples its groups: start a new run for a replay"
        )
    with open_ledger(folder) as opened:
        if opened is None:
            raise ConfigError(
                f"{KEY} = {config.replay.run}: the recorded run has no ledger yet: wait for its first steps"
            )
        ledger, found = opened
        recording = _fixed(ledger, folder, begun)
        problems = [*_sampling_problems(config, folder), *_vocabulary_problems(config, folder, model)]
        problems += _step_problems(config, recording, ledger)
    refuse(problems, loaded.provenance)
    text = (
        f"Replay: {recording.groups} groups, of {recording.steps} steps from step {recording.first_step}, of the run "
        f"{recording.run_id} in {folder.path}; replay.epochs = {config.replay.epochs}"
    )
    if (age := found.age()) is not None:
        text += f"; {age}"
    return Survey(recording=recording, text=f"{text}.", warning=_warning(config, folder) if built else "")


def check_recorded_data(loaded: LoadedConfig) -> None:
    """Raise ConfigError if the training prompts are other ones than when the recorded run began.

    Synthetic tasks have no files: their keys are compared (`SAMPLING_KEYS`).
    """
    config, section = loaded.config, "data.train"
    folder = _recorded_run(config)
    begun = read_json(folder.data).get(section, {}) if folder.data.exists() else {}
    now = contents(config.data, evaluates=False).get(section, {})
    found = "; ".join(differences(begun, now))
    if begun and found:
        message = f"holds other prompts than when the recorded run began: {found}"
        refuse([problem(config, section, message, "use the same files")], loaded.provenance)


def _recorded_run(config: Config) -> RunFolder:
    """The folder of the recorded run.

    Raises ConfigError if there is none, or if it is no other run of `r1ray train`.
    """
    assert config.replay.run is not None
    try:
        folder = RunFolder.open(Path(config.replay.run))
    except ConfigError as e:
        raise ConfigError(f"{KEY} = {config.replay.run}: {e}: give the folder of a run of `r1ray train`") from e
    if (use := folder.identity().use) != "train":
        raise ConfigError(f"{KEY} = {config.replay.run}: a run of `r1ray {use}` has no scored groups in a ledger")
    if folder.path.resolve() == Path(config.run.dir).resolve():
        raise ConfigError(f"{KEY} = {config.replay.run} is run.dir itself: give the new run another run.dir")
    return folder


def _fixed(ledger: LedgerReader, folder: RunFolder, begun: RunFolder | None) -> Recording:
    """The part of the recording that the run trains on: what is there at its start, or was when it began."""
    kept = ledger.kept_steps()
    if begun is None:
        return Recording(
            run_id=folder.identity().run_id,
            first_step=kept.start,
            steps=len(kept),
            groups_per_step=ledger.groups_per_step(),
        )
    recording = Recording(**read_json(begun.replay))
    check_same(recording, folder)
    if kept.stop < (needed := recording.first_step + recording.steps):
        raise IntegrityError(
            f"{folder.path}: expected {needed} trained steps, which this run began with, got {kept.stop}: the ledger "
            "of the "
            "recorded run is an older copy; give the complete one (replay.run)"
        )
    return recording


def _sampling_problems(config: Config, folder: RunFolder) -> Iterator[Problem]:
    """Find keys that describe other groups than the recorded ones."""
    recorded = load_config([str(folder.config.resolve())]).config
    fix = f"use that value; `r1ray train {folder.config} OVERLAY --replay {folder.path}` begins with the recorded ones"
    for key, (there, here) in changes(recorded, config).items():
        if key.startswith(SAMPLING_KEYS):
            yield Problem(key=key, value=here, message=f"the groups were recorded with {show(there)}", fix=fix)
    algorithm = config.algorithm
    if algorithm.routing == "replay" and (there := recorded.algorithm.routing) != "replay":
        message = f"uses the recorded experts of every token, and the run was recorded with {there}"
        yield problem(config, "algorithm.routing", message, f"use {there}")
    if config.rollout.length_schedule and (algorithm.mask_truncated or algorithm.overlong_buffer_tokens):
        key = "algorithm.mask_truncated" if algorithm.mask_truncated else "algorithm.overlong_buffer_tokens"
        message = "needs the limit of each completion, which a recording with rollout.length_schedule does not have"
        yield problem(config, key, message, "set it to " + ("false" if algorithm.mask_truncated else "0"))


def _vocabulary_problems(config: Config, folder: RunFolder, model: Path) -> Iterator[Problem]:
    here, there = vocab_hash(model), folder.identity().vocab_hash
    if here != there:
        message = f"has the vocabulary hash {here}, the recorded run {there}: its tokens would mean something else"
        yield problem(config, "model.path", message, "a model with the tokenizer of the recorded run")


def _step_problems(config: Config, recording: Recording, ledger: LedgerReader) -> Iterator[Problem]:
    """Find a number of steps for which the recording has too few groups."""
    size, epochs = config.learner.groups_per_step, config.replay.epochs
    usable, which = recording.groups, "recorded groups"
    if config.algorithm.dynamic_sampling:
        steps = range(recording.first_step, recording.first_step + recording.steps)
        usable = sum(len(set(rewards)) > 1 for step in steps for rewards in ledger.rewards_of(step))
        which = "recorded groups whose rewards differ (algorithm.dynamic_sampling)"
    if (enough := usable * epochs // size) < config.run.steps:
        message = (
            f"needs {config.run.steps * size} groups (learner.groups_per_step = {size}), and there are {usable} {which}"
            f" x {epochs} passes (replay.epochs)"
        )
        fix = (
            f"use at most {enough}, or replay.epochs={-(-config.run.steps * size // usable)}"
            if usable
            else ("wait for the first checkpoint of the recorded run: only saved steps are replayed")
        )
        yield problem(config, "run.steps", message, fix)


def _warning(config: Config, folder: RunFolder) -> str:
    here, there = model_hash(Path(config.model.path)), folder.identity().model_hash
    if here == there:
        return ""
    return (
        f"replay: {config.model.path} has the hash {here}, the recorded run began with {there}: another policy than "
        "this one "
        "sampled even its first groups (staleness/kl shows how far away it is)"
    )
