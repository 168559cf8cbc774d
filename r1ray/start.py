"""From the words of the command line to a run folder that may be written: everything that can be refused, is, here.

load configuration -> check this machine and disk -> plan memory and placement -> create or lock the run folder
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from r1ray.config.checks import Use
from r1ray.config.identity import changes, config_hash, refuse_another_run
from r1ray.config.load import LoadedConfig, load_config
from r1ray.config.problems import refuse
from r1ray.config.surroundings import check_surroundings
from r1ray.errors import ConfigError, IntegrityError
from r1ray.files import write_atomic
from r1ray.ledger.storage import check_file
from r1ray.machine import Machine, this_machine
from r1ray.metrics import MetricsWriter
from r1ray.modelfolder import model_hash, read_shape
from r1ray.planner import Plan, make_plan
from r1ray.runfolder import Identity, RunFolder

EMBEDDED = "tiny"
"""The `model.path` that stands for the embedded model."""

EMBEDDED_FOLDER = Path("models/tiny")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """A run that may start: its configuration is checked, and its folder is known where it is resumed."""

    loaded: LoadedConfig
    machine: Machine
    use: Use = "train"
    existing: RunFolder | None = None  # the run to continue

    @property
    def takes_embedded_model(self) -> bool:
        """Whether the run begins with the embedded model, which is built on the spot where it is missing."""
        return Path(self.loaded.config.model.path) == EMBEDDED_FOLDER

    @classmethod
    def new(cls, overlays: Sequence[str], overrides: Sequence[str], use: Use = "train") -> Preparation:
        """A new run. Raises ConfigError with every problem of the configuration."""
        return cls(loaded=_resolved(load_config(overlays, overrides, use)), machine=this_machine(), use=use)

    @classmethod
    def resumed(cls, path: Path, overlays: Sequence[str], overrides: Sequence[str], use: Use = "train") -> Preparation:
        """The run in `path`, with what a resume may change changed.

        Raises ConfigError where `path` holds no run of this command or a key that makes the run another one was changed,
        IntegrityError where the folder's format is another version's.
        """
        folder = RunFolder.open(path)
        if (begun := folder.identity().use) != use:
            raise ConfigError(f"{path} is a run of `r1ray {begun}`: resume it with that command")
        stored = load_config([str(folder.config.resolve())], use=use)
        here = f"run.dir={path}"
        loaded = _resolved(load_config([str(folder.config.resolve()), *overlays], [*overrides, here], use))
        refuse_another_run(stored.config, loaded.config, loaded.provenance, use)
        return cls(loaded=loaded, machine=this_machine(), use=use, existing=folder)

    def plan(self) -> Plan:
        """Where everything runs and what memory it takes. Raises ConfigError where the model folder cannot be read."""
        shape = read_shape(Path(self.loaded.config.model.path))
        return make_plan(self.loaded.config, shape, self.machine, self.use)

    def describe(self) -> str:
        """The resolved configuration, the placement and the memory, as text."""
        if self.takes_embedded_model and not EMBEDDED_FOLDER.exists():
            return (
                f"{self.loaded.to_yaml()}\nMemory: not known before `r1ray tiny {EMBEDDED_FOLDER}` has built the model."
            )
        return f"{self.loaded.to_yaml()}\n{self.plan().to_text()}"

    def check(self) -> None:
        """Raises ConfigError for what this machine or disk lacks, and for too little memory."""
        refuse(check_surroundings(self.loaded.config, self.machine, self.use), self.loaded.provenance)
        refuse(self.plan().problems, self.loaded.provenance)

    def folder(self, *, fresh: bool = False) -> RunFolder:
        """The locked run folder: a new one, or the one to continue. Everything is checked before anything is written.

        `fresh` sets an earlier run in the same place aside, under another name.
        Raises ConfigError for what this machine or disk lacks, for too little memory, and for a folder in use;
        IntegrityError where the tokenizer is not the one that the run was begun with.
        """
        from r1ray.data.vocab import vocab_hash

        config = self.loaded.config
        self.check()
        model = Path(config.model.path)
        vocabulary = vocab_hash(model)
        if self.existing is None:
            if fresh:
                RunFolder.set_aside(Path(config.run.dir))
            identity = Identity.new(
                vocab_hash=vocabulary,
                config_hash=config_hash(config, self.use),
                model_hash=model_hash(model),
                use=self.use,
            )
            return RunFolder.create(Path(config.run.dir), self.loaded.to_yaml(), identity)
        return _reopen(self.existing, self.loaded, vocabulary, self.use)

    def reopened(self) -> RunFolder:
        """The locked folder of the run that is resumed, for work that needs neither its model nor its machine."""
        assert self.existing is not None, "only what was begun is opened again"
        return _take(self.existing, self.loaded, self.use)


def _resolved(loaded: LoadedConfig) -> LoadedConfig:
    """With the folder of the embedded model in place of its name."""
    if loaded.config.model.path != EMBEDDED:
        return loaded
    model = replace(loaded.config.model, path=str(EMBEDDED_FOLDER))
    return replace(loaded, config=replace(loaded.config, model=model))


def _reopen(folder: RunFolder, loaded: LoadedConfig, vocabulary: str, use: Use) -> RunFolder:
    begun = folder.identity()
    if vocabulary != begun.vocab_hash:
        raise IntegrityError(
            f"the tokenizer in {loaded.config.model.path} has the vocabulary hash {vocabulary}, "
            f"the run in {folder.path} was begun with {begun.vocab_hash}: give the model folder that it was begun with"
        )
    if (model := model_hash(Path(loaded.config.model.path))) != begun.model_hash:
        raise IntegrityError(
            f"the model in {loaded.config.model.path} has the hash {model}, the run in {folder.path} was begun with "
            f"{begun.model_hash}: its sizes or weights changed; give the model folder that it was begun with"
        )
    if use == "train":
        _check_ledger(folder, begun.run_id)
    return _take(folder, loaded, use)


def _take(folder: RunFolder, loaded: LoadedConfig, use: Use) -> RunFolder:
    """Lock the folder and note what of the configuration was changed."""
    folder.lock()
    stored = load_config([str(folder.config.resolve())], use=use)
    changed = {key: new for key, (_, new) in changes(stored.config, loaded.config).items()}
    if changed:
        write_atomic(folder.config, loaded.to_yaml().encode())
        with MetricsWriter(folder.path, tensorboard=False) as writer:
            writer.event("reconfigured", changed=changed)
    return folder


def _check_ledger(folder: RunFolder, run_id: str) -> None:
    """A run that was killed before it had a ledger starts with a new one; one that has trained needs the one it had."""
    if folder.ledger.exists():
        check_file(folder.ledger, run_id)
    elif any(folder.checkpoints.iterdir()):
        raise IntegrityError(f"{folder.ledger} is missing, but there are checkpoints: restore it from a copy")
