"""Turn a command line into a run folder that may be written.

load configuration -> check this machine and disk -> plan memory and placement -> create or lock the run folder
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1ray.config.identity import changes, config_hash, refuse_another_run
from r1ray.config.load import LoadedConfig, load_config
from r1ray.config.problems import refuse
from r1ray.config.sources import CONF_DIR
from r1ray.config.uses import Use, replays
from r1ray.data.contents import contents, differences
from r1ray.errors import ConfigError, IntegrityError
from r1ray.models.folder import model_hash, read_shape
from r1ray.preflight.environment import check_environment
from r1ray.preflight.ledger_place import check_ledger, describe_ledger, ledger_problems
from r1ray.preflight.placement import Plan, make_plan
from r1ray.preflight.replay import Survey, survey
from r1ray.run.folder import RunFolder
from r1ray.run.identity import RunIdentity
from r1ray.run.metrics import MetricsWriter
from r1ray.util.files import read_json, refuse_unwritable, write_atomic
from r1ray.util.imports import add_import_folders, import_folders
from r1ray.util.machine import Machine, this_machine

EMBEDDED = "tiny"
"""The value of `model.path` that means the embedded model."""

EMBEDDED_FOLDER = Path("models/tiny")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """A run that may start: its configuration is checked, and its folder is known if it is resumed."""

    loaded: LoadedConfig
    machine: Machine
    use: Use = "train"
    existing: RunFolder | None = None  # the run to continue

    @property
    def takes_embedded_model(self) -> bool:
        """Whether the run begins with the embedded model, which is built at the start if it is missing."""
        return self.use != "eval" and Path(self.loaded.config.model.path) == EMBEDDED_FOLDER

    @property
    def model_is_built(self) -> bool:
        """False for the embedded model before a start has built it."""
        return not self.takes_embedded_model or EMBEDDED_FOLDER.exists()

    @classmethod
    def new(cls, overlays: Sequence[str], overrides: Sequence[str], use: Use = "train") -> Preparation:
        """Prepare a new run. Raises ConfigError with every problem of the configuration."""
        loaded = _resolved(load_config(overlays, overrides, use))
        add_import_folders(folders_of(loaded))
        return cls(loaded=loaded, machine=this_machine(), use=use)

    @classmethod
    def resumed(cls, path: Path, overlays: Sequence[str], overrides: Sequence[str], use: Use = "train") -> Preparation:
        """Prepare to resume the run in `path`, with the changes of configuration that a resume allows.

        Raises ConfigError if `path` holds no run of this command or a key was changed that a resume may not change,
        IntegrityError if the folder has the format of another version.
        """
        folder = RunFolder.open(path)
        if (begun := folder.identity().use) != use:
            raise ConfigError(f"{path} is a run of `r1ray {begun}`: resume it with that command")
        stored = load_config([str(folder.config.resolve())], use=use)
        here = f"run.dir={path}"
        loaded = _resolved(load_config([str(folder.config.resolve()), *overlays], [*overrides, here], use))
        refuse_another_run(stored.config, loaded.config, loaded.provenance, use)
        begun_with = read_json(folder.imports)["folders"] if folder.imports.exists() else []
        add_import_folders([*(f for f in folders_of(loaded) if f != path.absolute()), *map(Path, begun_with)])
        return cls(loaded=loaded, machine=this_machine(), use=use, existing=folder)

    def plan(self, model: Path | None = None) -> Plan:
        """Plan the placement and memory of all actors. Raises ConfigError if the model folder cannot be read.

        `model`: the folder to look at in the place of `model.path`, as for the embedded model before it is built.
        """
        shape = read_shape(model or Path(self.loaded.config.model.path))
        return make_plan(self.loaded.config, shape, self.machine, self.use)

    def describe(self, plan: Plan) -> str:
        """Format the resolved configuration, the placement and the memory."""
        lines = [self.loaded.to_yaml(), plan.to_text()]
        lines += [describe_ledger(self.loaded.config)] if self.use == "train" else []
        return "\n".join(lines)

    def survey(self, model: Path | None = None) -> Survey | None:
        """The recorded run that this one trains on; None if it samples its groups. `model`: as for `plan`.

        Raises ConfigError or IntegrityError if it cannot train on it.
        """
        if not replays(self.loaded.config, self.use):
            return None
        folder = model or Path(self.loaded.config.model.path)
        return survey(self.loaded, folder, built=self.model_is_built, begun=self.existing)

    def check(self, model: Path | None = None, planned: Callable[[Plan], None] | None = None) -> Plan:
        """Check the run and return its plan. `planned` gets the plan before it is refused for too little memory.

        Raises ConfigError for what this machine or disk lacks, and for too little memory.
        """
        config = self.loaded.config
        found = check_environment(config, self.machine, self.use, model)
        found += ledger_problems(config) if self.use == "train" else []
        refuse(found, self.loaded.provenance)
        recorded = self.survey(model)
        plan = self.plan(model)
        if recorded is not None:
            plan = replace(plan, notes=(recorded.text,))
        if planned is not None:
            planned(plan)
        refuse(plan.problems, self.loaded.provenance)
        return plan

    def check_folder(self, *, fresh: bool = False) -> None:
        """Refuse the run folder as `folder` would, and write nothing. Raises ConfigError or IntegrityError."""
        path = Path(self.loaded.config.run.dir)
        if self.existing is not None:
            self.existing.refuse_in_use()
        elif fresh:
            RunFolder(path).refuse_in_use()
            refuse_unwritable(path.parent)
        else:
            RunFolder(path).refuse_unusable()

    def check_resumed(self, data: Mapping[str, Any] | None = None) -> None:
        """Refuse to continue `existing` with another tokenizer, model, ledger or other rows. `data`: see `folder`.

        Raises IntegrityError.
        """
        if self.existing is not None:
            _refuse_others(self.existing, self.loaded, self._vocabulary(), self.use)
            _refuse_other_data(self.existing, self._found() if data is None else data, self.use)

    def folder(self, *, fresh: bool = False, data: Mapping[str, Any] | None = None) -> RunFolder:
        """Lock and return the run folder: a new one, or the one to resume. All checks come before the first write.

        `fresh` renames an earlier run in the same place. `data` is what was found in the sources
        (`SupervisedData.facts`); None: they are read here, if this command has no record of its own.
        Raises ConfigError for what this machine or disk lacks, for too little memory, and for a folder in use;
        IntegrityError if tokenizer, model or data are not those of the run's start.
        """
        self.check()
        found = self._found() if data is None else data
        if self.existing is None:
            return self._created(found, fresh)
        self.check_resumed(found)
        taken = _take(self.existing, self.loaded, self.use)
        if found and not taken.data.exists():
            write_atomic(taken.data, json.dumps(found, indent=1).encode())
            _warn_unrecorded(taken)
        return taken

    def _created(self, found: Mapping[str, Any], fresh: bool) -> RunFolder:
        config = self.loaded.config
        identity = RunIdentity.new(
            vocab_hash=self._vocabulary(),
            config_hash=config_hash(config, self.use),
            model_hash=model_hash(Path(config.model.path)),
            use=self.use,
        )
        if fresh:
            RunFolder.set_aside(Path(config.run.dir))
        records: dict[str, Mapping[str, Any]] = {"imports.json": {"folders": import_folders()}}
        if found:
            records["data.json"] = found
        if (recorded := self.survey()) is not None:
            records["replay.json"] = recorded.recording.to_json()
        return RunFolder.create(Path(config.run.dir), self.loaded.to_yaml(), identity, records)

    def _vocabulary(self) -> str:
        from r1ray.data.vocab import vocab_hash

        return vocab_hash(Path(self.loaded.config.model.path))

    def _found(self) -> dict[str, Any]:
        if self.use not in ("train", "sample"):  # `r1ray eval` keeps the digests of its benchmarks
            return {}
        config = self.loaded.config
        return contents(config.data, evaluates=self.use == "train" and not replays(config))

    def reopened(self) -> RunFolder:
        """Lock and return the folder of the resumed run, for work that needs neither its model nor its machine."""
        assert self.existing is not None, "only an existing run is opened again"
        return _take(self.existing, self.loaded, self.use)


def folders_of(loaded: LoadedConfig) -> list[Path]:
    """Return the folders of the user's configuration files, that of the last file first."""
    folders = [Path(name).absolute().parent for name in reversed(loaded.sources)]
    return list(dict.fromkeys(folder for folder in folders if not folder.is_relative_to(CONF_DIR)))


def _resolved(loaded: LoadedConfig) -> LoadedConfig:
    """Replace the name of the embedded model by its folder."""
    if loaded.config.model.path != EMBEDDED:
        return loaded
    model = replace(loaded.config.model, path=str(EMBEDDED_FOLDER))
    return replace(loaded, config=replace(loaded.config, model=model))


def _refuse_others(folder: RunFolder, loaded: LoadedConfig, vocabulary: str, use: Use) -> None:
    """Raise IntegrityError if tokenizer, model or ledger are not those of the run in `folder`."""
    begun = folder.identity()
    if vocabulary != begun.vocab_hash:
        raise IntegrityError(
            f"the tokenizer in {loaded.config.model.path} has the vocabulary hash {vocabulary}, "
            f"the run in {folder.path} started with {begun.vocab_hash}: give the model folder that it started with"
        )
    if (model := model_hash(Path(loaded.config.model.path))) != begun.model_hash:
        raise IntegrityError(
            f"the model in {loaded.config.model.path} has the hash {model}, the run in {folder.path} started with "
            f"{begun.model_hash}: its sizes or weights changed; give the model folder that it started with"
        )
    if folder.replay.exists() and not replays(loaded.config):
        raise ConfigError(
            f"replay.run = null: {folder.path} trains on recorded groups: give the folder of the recorded run"
        )
    if use == "train":
        check_ledger(loaded.config, folder)


def _refuse_other_data(folder: RunFolder, data: Mapping[str, Any], use: Use) -> None:
    """Raise IntegrityError if the sources now hold other `data` than at the start of the run in `folder`.

    Order and parts are functions of the number of rows: with others, a resume would be another run. A run without
    such a record, which was killed at its very start, cannot be compared.
    """
    if not data or not folder.data.exists() or (begun := read_json(folder.data)) == data:
        return
    rows = {"sft": "conversations", "reward-model": "preferences"}.get(use, "prompts")
    raise IntegrityError(
        f"the {rows} differ from those that the run in {folder.path} started with: "
        f"{'; '.join(differences(begun, data))}. "
        "Use the same files, or start a new run"
    )


def _warn_unrecorded(folder: RunFolder) -> None:
    """Warn that the data of a run without a record were not checked."""
    message = (
        f"{folder.path} has no record of its data, so r1ray cannot check whether the data changed since the run began. "
        f"Their present state is recorded in {folder.data.name}, and later resumes are checked against it."
    )
    with MetricsWriter(folder.path, tensorboard=False) as writer:
        writer.event("data_unrecorded", message=message)
    print(f"warning: {message}", file=sys.stderr, flush=True)


def _take(folder: RunFolder, loaded: LoadedConfig, use: Use) -> RunFolder:
    """Lock the folder, and record changes of the configuration."""
    folder.lock()
    stored = load_config([str(folder.config.resolve())], use=use)
    changed = {key: new for key, (_, new) in changes(stored.config, loaded.config).items()}
    if changed:
        write_atomic(folder.config, loaded.to_yaml().encode())
        with MetricsWriter(folder.path, tensorboard=False) as writer:
            writer.event("reconfigured", changed=changed)
    return folder
