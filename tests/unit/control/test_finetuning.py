"""The control loop of supervised training on fake ranks: what it calls when, and what it does when they fail."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from r1ray.config.schema import Config
from r1ray.control.commands import Commands
from r1ray.control.finetuning import Finetuning
from r1ray.control.learners import LearnerGroup
from r1ray.control.stop import Stop
from r1ray.errors import IntegrityError, NumericError, ProcessDied, RetryBudgetExhausted
from r1ray.run.folder import RunFolder
from r1ray.run.identity import RunIdentity
from r1ray.run.metrics import MetricsWriter, read_evaluations, read_events, read_metrics
from tests.unit.scripted import FakeGang, FakeHandle

DATA = {"digest": "d", "conversations": 10, "held_out": {"exam": 2}, "left_out": {}}
STEPS = 6


class Ranks:
    """Two ranks with one memory of what was done; `fail[(method, step)]` are the errors that its next calls raise."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.disk: list[int] = []
        self.step = 0
        self.done: list[tuple[str, int]] = []
        self.fail: dict[tuple[str, int], list[BaseException]] = {}
        self.skip: set[int] = set()
        self.data = dict(DATA)
        self.after: Callable[[str, int], None] = lambda method, step: None

    def spawn(self, rank: int) -> FakeHandle:
        def do(method: str, act: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                step = self.step
                if rank:  # the second rank only keeps the first company
                    return self.info() if method == "setup" else None
                if errors := self.fail.get((method, step)):
                    raise errors.pop(0)
                self.done.append((method, step))
                answer = act(*args)
                self.after(method, step)
                return answer

            return call

        acts: dict[str, Callable[..., Any]] = {
            "address": lambda: "here",
            "listen": lambda host: 1,
            "setup": lambda *_: self.info(),
            "load_latest": self.load,
            "discard_checkpoints": lambda *_: None,
            "train_step": self.train,
            "evaluate": lambda: [{"source": "exam", "loss": 1.0, "token_accuracy": 0.5}],
            "save_checkpoint": lambda path, run_id: self.disk.append(self.step),
            "prune_checkpoints": lambda *_: None,
            "export": lambda path: None,
        }
        return FakeHandle(f"learner-{rank}", **{name: do(name, act) for name, act in acts.items()})

    def info(self) -> dict[str, Any]:
        return {"steps": STEPS, "data": self.data, "place": {"pid": 1, "node": "n"}}

    def load(self, folder: str, run_id: str) -> dict[str, Any]:
        newest = max(self.disk, default=None)
        self.step = newest or 0
        return {"policy_version": newest, "name": newest, "warnings": []}

    def train(self) -> dict[str, float]:
        self.step += 1
        return {
            "sft/loss": math.nan if self.step - 1 in self.skip else 1.0,
            "train/skipped": self.step - 1 in self.skip,
        }

    def of(self, method: str) -> list[int]:
        return [step for name, step in self.done if name == method]


@pytest.fixture
def config() -> Config:
    made = Config()
    made.learner.ranks, made.checkpoint.every_steps = 2, 2
    made.recovery.max_learner_restarts, made.recovery.max_nan_steps = 1, 2
    return made


@pytest.fixture
def ranks(config: Config) -> Ranks:
    return Ranks(config)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    identity = RunIdentity.new(vocab_hash="v", config_hash="c", model_hash="m", use="sft")
    with RunFolder.create(tmp_path / "run", "run: {}\n", identity) as made:
        yield made


def train(ranks: Ranks, folder: RunFolder, stop: Stop | None = None) -> bool:
    """One start of the command."""
    stop = stop or Stop(60.0)
    with MetricsWriter(folder.path, tensorboard=False) as writer:
        return Finetuning(
            ranks.config,
            use="sft",
            data=DATA,
            learners=lambda tick: LearnerGroup(
                ranks.config, reserve=lambda: FakeGang(ranks.spawn), tick=tick, on_event=writer.event
            ),
            folder=folder,
            writer=writer,
            stop=stop,
            commands=Commands(folder, stop=stop, on_event=writer.event),
            report=lambda state, done, total, figures: None,
        ).run()


def kinds(folder: RunFolder) -> list[str]:
    return [event["kind"] for event in read_events(folder.path)]


def test_a_run_trains_saves_evaluates_at_both_ends_and_exports(ranks: Ranks, folder: RunFolder) -> None:
    assert train(ranks, folder)
    assert ranks.of("train_step") == [0, 1, 2, 3, 4, 5]
    assert ranks.disk == [2, 4, 6]
    assert ranks.of("evaluate") == [0, 6]
    assert ranks.of("export") == [6]
    assert [row["step"] for row in read_metrics(folder.path)] == [0, 1, 2, 3, 4, 5]
    assert [row["step"] for row in read_evaluations(folder.path)] == [0, 6]


def test_evaluations_come_as_often_as_asked_for(ranks: Ranks, folder: RunFolder) -> None:
    ranks.config.sft.evaluate_every_steps = 3
    train(ranks, folder)
    assert ranks.of("evaluate") == [0, 3, 6]


def test_a_dead_rank_costs_the_steps_since_the_checkpoint(ranks: Ranks, folder: RunFolder) -> None:
    ranks.fail["train_step", 3] = [ProcessDied("rank 0 died")]
    assert train(ranks, folder)
    assert ranks.of("train_step") == [0, 1, 2, 2, 3, 4, 5]
    assert ranks.of("evaluate") == [0, 6]
    assert [row["step"] for row in read_metrics(folder.path)] == [0, 1, 2, 3, 4, 5]
    assert kinds(folder).count("learner_lost") == 1


def test_a_rank_that_dies_again_and_again_ends_the_run(ranks: Ranks, folder: RunFolder) -> None:
    ranks.fail["train_step", 3] = [ProcessDied("rank 0 died") for _ in range(9)]
    with pytest.raises(RetryBudgetExhausted, match=r"recovery.max_learner_restarts=1.*rank 0 died"):
        train(ranks, folder)
    assert len(ranks.fail["train_step", 3]) == 7


def test_a_checkpoint_forgives_a_death(ranks: Ranks, folder: RunFolder) -> None:
    ranks.fail = {("train_step", 1): [ProcessDied("a")], ("train_step", 3): [ProcessDied("b")]}
    assert train(ranks, folder)


def test_an_evaluation_that_a_death_cut_off_is_made_up_for(ranks: Ranks, folder: RunFolder) -> None:
    """A checkpoint comes before the evaluation of the same step: going on from it must not lose the evaluation."""
    ranks.config.sft.evaluate_every_steps = 2
    ranks.fail["evaluate", 4] = [ProcessDied("rank 0 died")]
    assert train(ranks, folder)
    assert ranks.of("evaluate") == [0, 2, 4, 6]
    assert [row["step"] for row in read_evaluations(folder.path)] == [0, 2, 4, 6]


def test_steps_without_a_finite_gradient_are_counted_and_end_the_run(ranks: Ranks, folder: RunFolder) -> None:
    ranks.skip = {1, 3, 4}
    with pytest.raises(NumericError, match=r"steps 3 to 4 .*recovery.max_nan_steps=2.*--fresh .*lr; .* from step 3"):
        train(ranks, folder)
    assert kinds(folder).count("step_skipped") == 3


def test_lone_skipped_steps_do_not_end_the_run(ranks: Ranks, folder: RunFolder) -> None:
    ranks.skip = {1, 3, 5}
    assert train(ranks, folder)


def test_a_stop_saves_and_a_resume_goes_on_there(ranks: Ranks, folder: RunFolder) -> None:
    stop = Stop(60.0)
    ranks.after = lambda method, step: stop.request("asked") if (method, step) == ("train_step", 2) else None
    assert not train(ranks, folder, stop)
    assert ranks.disk == [2, 3]
    assert kinds(folder)[-1] == "interrupted"
    assert train(ranks, folder)
    assert ranks.of("train_step") == [0, 1, 2, 3, 4, 5]
    assert [row["step"] for row in read_metrics(folder.path)] == [0, 1, 2, 3, 4, 5]


def test_a_finished_run_that_is_resumed_only_exports(ranks: Ranks, folder: RunFolder) -> None:
    train(ranks, folder)
    assert train(ranks, folder)
    assert ranks.of("train_step") == [0, 1, 2, 3, 4, 5]
    assert ranks.of("evaluate") == [0, 6]
    assert ranks.of("export") == [6, 6]
    assert ranks.disk == [2, 4, 6]


def test_ranks_that_read_other_rows_end_the_run(ranks: Ranks, folder: RunFolder) -> None:
    ranks.data = {**DATA, "digest": "other"}
    with pytest.raises(IntegrityError, match="other rows than the driver"):
        train(ranks, folder)
    assert not ranks.of("train_step")
