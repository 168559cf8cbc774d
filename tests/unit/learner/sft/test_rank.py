"""What a step of supervised fine-tuning is: which conversations, on which rank, in which micro-batch,
with what figures.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from learner.batch import PackedTokens
from learner.engine import StepReport
from learner.examples import SupervisedData
from learner.schedules import learning_rate
from learner.sft.data import Example, read_data
from learner.sft.rank import SftRank
from r1ray.config.schema import Config, SourceConfig
from tests.unit.data_helpers import ByteTokenizer, write_jsonl

N = 10


@pytest.fixture(autouse=True)
def byte_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learner.supervised.load_tokenizer", lambda path, vocab_hash: ByteTokenizer())


def make_rank(config: Config, rank: int = 0, world_size: int = 1, **engine: Any) -> SftRank:
    """A rank with a fake engine, which has the given methods."""
    fake: Any = SimpleNamespace(device=torch.device("cpu"), all_reduce=lambda values, op: values, **engine)
    config = replace(config, learner=replace(config.learner, ranks=world_size))
    made = SftRank(config=config, rank=rank)
    made.attach(fake)
    return made


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = Config()
    lines = [{"prompt": f"q{i}", "response": "x" * (3 * i + 1)} for i in range(N)]
    path = write_jsonl(tmp_path / "chats.jsonl", lines)
    made.data.train, made.data.template = [SourceConfig(name="chats", kind="jsonl", path=path)], "none"
    made.model.max_length, made.learner.micro_batch_tokens = 40, 40
    made.sft.epochs, made.sft.batch_size, made.sft.held_out = 3, 4, 0.0
    return made


@pytest.fixture
def data(config: Config) -> SupervisedData[Example]:
    return read_data(config, ByteTokenizer())


# -- order ----------------------------------------------------------------------------------------------------------


def test_every_epoch_takes_every_conversation_once_in_an_order_of_its_own(
    config: Config, data: SupervisedData[Example]
) -> None:
    trainer = make_rank(config)
    assert (trainer.steps, trainer.steps_per_epoch) == (9, 3)
    steps = [trainer.places(step) for step in range(9)]
    assert [len(places) for places in steps] == [4, 4, 2] * 3
    epochs = [[place for places in steps[first : first + 3] for place in places] for first in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_order_is_a_function_of_the_seed_and_the_step_alone(config: Config, data: SupervisedData[Example]) -> None:
    first = [make_rank(config).places(step) for step in range(9)]
    assert [make_rank(config, rank=1, world_size=2).places(step) for step in reversed(range(9))] == first[::-1]
    config.run.seed += 1
    assert [make_rank(config).places(step) for step in range(9)] != first


# -- packing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_batch_is_packed_without_padding_and_every_token_is_on_one_rank(
    config: Config, data: SupervisedData[Example], world_size: int
) -> None:
    batch = [data.train[i] for i in range(N)]
    parts = [make_rank(config, rank, world_size)._micro_batches(batch) for rank in range(world_size)]
    assert len({len(micro_batches) for micro_batches in parts}) == 1  # ranks meet in each
    real = [packed for micro_batches in parts for packed, indices in micro_batches if indices]
    assert all(len(packed.input_ids_R) <= 40 for packed in real)
    assert sum(len(packed.input_ids_R) for packed in real) == sum(example.tokens for example in batch)
    found = sorted(target for packed in real for target in packed.target_M.tolist())
    assert found == sorted(np.concatenate([example.completion for example in batch]).tolist())


def test_a_token_is_predicted_from_the_one_before_it_in_its_own_conversation(
    config: Config, data: SupervisedData[Example]
) -> None:
    for packed, _ in make_rank(config)._micro_batches([data.train[i] for i in range(4)]):
        assert torch.equal(packed.input_ids_R[packed.source_M + 1], packed.target_M)
        assert torch.equal(packed.position_ids_R[packed.source_M + 1] - 1, packed.position_ids_R[packed.source_M])


# -- figures --------------------------------------------------------------------------------------------------------


class FakeModel:
    """Gives the token with the id t the log-probability -t / 100, and hits the letter x."""

    def __init__(self) -> None:
        self.losses: list[torch.Tensor] = []

    def step(self, micro_batches: Any, loss_of: Any, *, lr: float) -> StepReport:
        self.lr = lr
        self.losses = [loss_of(self.model, micro_batch) for micro_batch in micro_batches]
        return StepReport(applied=True, grad_norm=0.5)

    def model(self, packed: PackedTokens, greedy: bool) -> tuple[torch.Tensor, torch.Tensor]:
        assert greedy
        return -packed.target_M / 100.0, (packed.target_M == ord("x")).float()


def test_the_loss_is_the_mean_over_all_response_tokens_of_the_step(
    config: Config, data: SupervisedData[Example]
) -> None:
    config.learner.optimizer.schedule, config.learner.optimizer.min_lr_ratio = "cosine", 0.1
    fake = FakeModel()
    trainer = make_rank(config, step=fake.step, forward_only=fake.model)
    trainer._version = 4
    metrics = trainer.train_step()
    tokens = np.concatenate([data.train[place].completion for place in trainer.places(4)])
    assert metrics["sft/loss"] == pytest.approx(tokens.mean() / 100)
    assert float(sum(fake.losses)) == pytest.approx(metrics["sft/loss"])  # what the gradient is of
    assert metrics["sft/perplexity"] == pytest.approx(math.exp(metrics["sft/loss"]))
    assert metrics["sft/token_accuracy"] == pytest.approx((tokens == ord("x")).mean())
    assert metrics["batch/response_tokens"] == len(tokens)
    assert metrics["batch/conversations"] == 4
    assert metrics["sft/epoch"] == pytest.approx(5 / 3)
    assert metrics["train/grad_norm"] == 0.5
    assert fake.lr == metrics["train/lr"] == learning_rate(4, 9, config.learner.optimizer)


def test_the_rate_falls_to_its_floor_over_all_epochs(config: Config, data: SupervisedData[Example]) -> None:
    config.learner.optimizer.schedule, config.learner.optimizer.min_lr_ratio = "cosine", 0.1
    config.learner.optimizer.warmup_steps = 2
    trainer = make_rank(config)
    rates = [learning_rate(step, trainer.steps, config.learner.optimizer) for step in range(trainer.steps + 1)]
    peak = config.learner.optimizer.lr
    assert rates[:3] == pytest.approx([peak / 2, peak, peak])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(peak / 10)


def test_the_ranks_parts_of_the_loss_sum_to_that_of_one_rank(config: Config, data: SupervisedData[Example]) -> None:
    def losses(rank: int, world_size: int) -> float:
        fake = FakeModel()
        make_rank(config, rank, world_size, step=fake.step, forward_only=fake.model).train_step()
        return float(sum(fake.losses))

    assert losses(0, 3) + losses(1, 3) + losses(2, 3) == pytest.approx(losses(0, 1))


def test_held_out_figures_are_those_of_the_whole_source(config: Config, tmp_path: Path) -> None:
    content = [
        {"prompt": "q", "response": "xy"[i % 2] * (1 + i % 30)} for i in range(150)
    ]  # more than are packed at once
    path = write_jsonl(tmp_path / "exam.jsonl", content)
    config.data.evaluation = [SourceConfig(name="exam", kind="jsonl", path=path)]
    data, fake = read_data(config, ByteTokenizer()), FakeModel()
    (row,) = make_rank(config, forward_only=fake.model).evaluate()
    tokens = np.concatenate([data.held_out["exam"][i].completion for i in range(150)])
    assert (row["source"], row["conversations"], row["tokens"]) == ("exam", 150, len(tokens))
    assert row["loss"] == pytest.approx(tokens.mean() / 100)
    assert row["token_accuracy"] == pytest.approx((tokens == ord("x")).mean())


def test_a_loss_that_is_no_number_stays_none_in_the_perplexity() -> None:
    from learner.sft.rank import _perplexity

    assert math.isnan(_perplexity(math.nan))
    assert _perplexity(1e9) == math.inf
    assert _perplexity(0.0) == 1.0
