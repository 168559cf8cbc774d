"""Preferences as examples, what is held out, a step of a reward model, and the figures of its report."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from learner.engine import StepReport
from learner.examples import HELD_OUT, SupervisedData
from learner.preference.model import PackedExamples, loss_and_hits
from learner.preference.rank import RewardModelRank
from learner.preference.report import measure
from learner.preference.rows import Example, part_of, read_data
from r1ray.config.schema import Config, SourceConfig
from r1ray.errors import ConfigError
from tests.unit.data_helpers import write_jsonl


class Letters:
    eos_token_id = 0
    chat_template = None

    def encode(self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False) -> list[int]:
        return [ord(c) for c in text]


def configured(folder: Path, *rows: Any, kind: str = "pairwise", **settings: Any) -> Config:
    config = Config()
    path = write_jsonl(folder / "data.jsonl", list(rows))
    config.data.train = [SourceConfig(name="rows", kind="jsonl", path=path)]
    config.model.max_length, config.learner.micro_batch_tokens = 100, 200
    config.reward_model = replace(config.reward_model, kind=kind, held_out=0.5, batch_size=3, **settings)
    return config


def examples_of(data: SupervisedData[Example]) -> list[Example]:
    parts = (data.train, *data.held_out.values())
    return [part[i] for part in parts for i in range(len(part))]


def text(tokens: Any) -> str:
    return "".join(map(chr, tokens))


def pairs(n: int, **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"Hi {i}", "chosen": "<think>long</think>yes", "rejected": "no", **more} for i in range(n)]


# -- rows -------------------------------------------------------------------------------------------------------------


def test_pairs_are_judged_without_their_thinking_and_single_responses_with_it(tmp_path: Path) -> None:
    data = read_data(configured(tmp_path, *pairs(9), *pairs(2, chosen="y" * 100)), Letters())
    assert data.left_out == {"too_long": 2}
    for example in examples_of(data):
        chosen, rejected = map(text, example.sequences)
        assert chosen.startswith("User: Hi ")
        assert chosen.endswith("\nAssistant: yes")
        assert rejected.endswith("\nAssistant: no")
        assert example.lengths == (3, 2)
        assert example.tokens == len(chosen) + len(rejected)

    chats = [{"role": "user", "content": "Hi"}]
    rows = [{"messages": [*chats], "response": "<think>bomb</think>no", "safe": False, "prompt": None}]
    rows += [{"prompt": f"q{i}", "response": "", "safe": True} for i in range(9)]
    found = examples_of(read_data(configured(tmp_path, *rows, kind="pointwise"), Letters()))
    (unsafe,) = [example for example in found if example.safe is False]
    assert text(unsafe.sequences[0]).endswith("<think>bomb</think>no")


def test_the_part_to_judge_follows_the_kind_unless_it_is_configured() -> None:
    settings = Config().reward_model
    assert part_of(settings) == "summary"
    assert part_of(replace(settings, kind="pointwise")) == "response"
    assert part_of(replace(settings, judge="response")) == "response"


def test_the_limit_in_tokens_is_exact(tmp_path: Path) -> None:
    frame = len("User: Hi\nAssistant: ")
    rows = [{"prompt": "Hi", "chosen": "y" * (100 - frame + more), "rejected": "n"} for more in (0, 1)]
    config = configured(tmp_path, *rows)
    config.data.evaluation = [SourceConfig(name="exam", kind="jsonl", path=config.data.train[0].path, limit=1)]
    data = read_data(config, Letters())
    assert (len(data.train), len(data.train[0].sequences[0]), data.left_out) == (1, 100, {"too_long": 1})


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ([1], "pairwise", "data.jsonl:2: a row: expected an object"),
        ({"prompt": "a", "chosen": "b"}, "pairwise", "data.jsonl:2: rejected = None: expected a string"),
        ({"prompt": "a", "response": "b", "safe": "yes"}, "pointwise", "data.jsonl:2: safe = 'yes': expected true"),
        ({"prompt": "a", "response": "b", "safe": 1}, "pointwise", "data.jsonl:2: safe = 1: expected true or false"),
        ({"messages": [], "response": "b", "safe": True}, "pointwise", "data.jsonl:2: messages: expected a list"),
    ],
)
def test_a_row_of_another_kind_is_refused_with_its_line(tmp_path: Path, row: Any, kind: str, message: str) -> None:
    first = {**pairs(1)[0], "response": "a", "safe": True}
    with pytest.raises(ConfigError, match=message):
        read_data(configured(tmp_path, first, row, kind=kind), Letters())


def test_no_prompt_is_both_trained_on_and_held_out(tmp_path: Path) -> None:
    def prompts(part: Any) -> set[str]:
        return {text(part[i].sequences[0]) for i in range(len(part))}

    config = configured(tmp_path, *pairs(40), *pairs(40))
    data = read_data(config, Letters())
    assert len(data.train) + len(data.held_out[HELD_OUT]) == 80
    assert not prompts(data.train) & prompts(data.held_out[HELD_OUT])
    assert data.facts() == read_data(config, Letters()).facts()
    config.reward_model.held_out = 1e-9
    with pytest.raises(ConfigError, match=r"reward_model\.held_out = 1e-09 holds out none of 80 rows"):
        read_data(config, Letters())


def test_the_digest_distinguishes_labels(tmp_path: Path) -> None:
    def digest(safe: bool) -> str:
        rows = [{"prompt": f"q{i}", "response": "a", "safe": safe or i > 0} for i in range(9)]
        return read_data(configured(tmp_path, *rows, kind="pointwise"), Letters()).digest

    assert digest(True) == digest(True) != digest(False)


# -- a step -----------------------------------------------------------------------------------------------------------


def test_losses_are_bradley_terrys_and_the_cross_entropy() -> None:
    loss, hits = loss_and_hits("pairwise", torch.tensor([2.0, 0.5, 1.0, 1.0, -1.0, 3.0]), torch.zeros(3))
    assert float(loss) == pytest.approx(sum(math.log1p(math.exp(-margin)) for margin in (1.5, 0.0, -4.0)))
    assert float(hits) == 1.5  # right, a tie, wrong
    loss, hits = loss_and_hits("pointwise", torch.tensor([2.0, -1.0, 0.5]), torch.tensor([1.0, 0.0, 0.0]))
    assert float(loss) == pytest.approx(
        math.log1p(math.exp(-2.0)) + math.log1p(math.exp(-1.0)) + math.log1p(math.exp(0.5))
    )
    assert float(hits) == 2.0


class PretendedEngine:
    """Scores a sequence by the code of its last letter over 100."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.losses: list[torch.Tensor] = []

    def all_reduce(self, values: torch.Tensor, op: str) -> torch.Tensor:
        return values

    def step(self, micro_batches: Any, loss_of: Any, *, lr: float) -> StepReport:
        self.losses = [loss_of(self.forward_only, micro_batch) for micro_batch in micro_batches]
        return StepReport(applied=True, grad_norm=0.5)

    def forward_only(self, packed: PackedExamples) -> torch.Tensor:
        return packed.input_ids_R[packed.last_M].float() / 100


def make_rank(config: Config, monkeypatch: pytest.MonkeyPatch, rank: int = 0, ranks: int = 1) -> RewardModelRank:
    monkeypatch.setattr("learner.supervised.load_tokenizer", lambda path, vocab_hash: Letters())
    made = RewardModelRank(config=replace(config, learner=replace(config.learner, ranks=ranks)), rank=rank)
    made.attach(PretendedEngine())  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize("kind", ["pairwise", "pointwise"])
def test_the_ranks_parts_of_a_step_sum_to_the_mean_over_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    rows = [
        {"prompt": f"q{i}", "chosen": "abc"[i % 3], "rejected": "z", "response": "abc"[i % 3], "safe": i % 2 == 0}
        for i in range(30)
    ]
    config = configured(tmp_path, *rows, kind=kind)
    config.learner.micro_batch_tokens = 50  # one row in each
    alone = make_rank(config, monkeypatch)
    metrics = alone.train_step()
    batch = [alone._data.train[i] for i in alone.places(0)]
    scores = torch.tensor([s[-1] / 100 for e in batch for s in e.sequences])
    loss, hits = loss_and_hits(
        "pairwise" if kind == "pairwise" else "pointwise", scores, torch.tensor([float(bool(e.safe)) for e in batch])
    )
    assert metrics["reward_model/loss"] == pytest.approx(float(loss) / 3)
    assert metrics["reward_model/accuracy"] == pytest.approx(float(hits) / 3)
    assert metrics["batch/rows"] == 3
    parts = [make_rank(config, monkeypatch, rank, 4) for rank in range(4)]
    for part in parts:
        part.train_step()
    engines: list[Any] = [part._engine for part in parts]
    assert [len(engine.losses) for engine in engines] == [1, 1, 1, 1]  # one rank has a dummy
    assert float(sum(sum(engine.losses) for engine in engines)) == pytest.approx(metrics["reward_model/loss"])


def test_held_out_rows_are_scored_in_their_order_however_they_are_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": f"q{i:03}", "chosen": "x" * (i % 40) + "abc"[i % 3], "rejected": "bb"} for i in range(400)]
    made = make_rank(configured(tmp_path, *rows), monkeypatch)
    held_out = made._data.held_out[HELD_OUT]
    assert len(held_out) > 128  # more than are scored at once
    (found,) = made.evaluate()
    last = [sequence[-1] for i in range(len(held_out)) for sequence in held_out[i].sequences]
    expected = measure("pairwise", [held_out[i] for i in range(len(held_out))], [token / 100 for token in last])
    assert found.pop("source") == HELD_OUT
    assert found == pytest.approx(expected)  # numpy sums arrays of other alignments in another order


def test_the_report_is_of_the_exported_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported: dict[str, str] = {}

    def export(weights: Any, *, source: Path, target: Path, writer: bool, files: dict[str, str]) -> None:
        exported.update(files)

    monkeypatch.setattr("learner.preference.rank.export_model", export)
    made = make_rank(configured(tmp_path, *pairs(20)), monkeypatch)
    settings = SimpleNamespace(to_json_string=lambda: '{"id2label": {}}')
    hf = type("ToyForSequenceClassification", (torch.nn.Module,), {"config": settings})()
    engine: Any = made._engine
    engine.module, engine.full_parameters = SimpleNamespace(hf=hf), lambda: iter(())
    made.export(tmp_path / "final")  # without an evaluation: it makes one
    report = json.loads(exported["reward_report.json"])
    assert json.loads(exported["config.json"])["architectures"] == ["ToyForSequenceClassification"]
    (row,) = made.evaluate()
    assert report["held_out"] == {HELD_OUT: {key: value for key, value in row.items() if key != "source"}}
    assert (report["kind"], report["judge"], report["steps"]) == ("pairwise", "summary", 0)
    made.train_step()
    made.export(tmp_path / "final")
    assert json.loads(exported["reward_report.json"])["steps"] == 1


# -- the report -------------------------------------------------------------------------------------------------------


def pair(chosen: int, rejected: int) -> Example:
    made = tuple(np.ones(n, dtype=np.int32) for n in (chosen, rejected))
    return Example(sequences=made, lengths=(chosen, rejected))


def test_the_report_of_pairs_distinguishes_accuracy_from_length() -> None:
    rows = [pair(9, 3), pair(2, 8), pair(5, 5), pair(7, 1)]
    by_length = [float(n) for p in rows for n in p.lengths]
    assert measure("pairwise", rows, by_length) == {
        "rows": 4.0,
        "accuracy": 0.625,  # right, wrong, a tie, right
        "longer_preferred": 1.0,
        "longer_chosen": pytest.approx(2 / 3),
        "length_correlation": pytest.approx(1.0),
    }
    always_right = [1.0, 0.0] * 4
    assert measure("pairwise", rows, always_right)["accuracy"] == 1.0
    assert measure("pairwise", [pair(5, 5)], [1.0, 0.0])["longer_preferred"] is None


def test_the_report_of_safety_counts_what_is_judged_safe() -> None:
    one = np.ones(1, dtype=np.int32)
    rows = [Example(sequences=(one,), lengths=(n,), safe=n > 2) for n in (1, 2, 3, 4)]
    figures = measure("pointwise", rows, [-1.0, 1.0, 1.0, 1.0])
    assert figures["accuracy"] == 0.75
    assert (figures["safe"], figures["judged_safe"]) == (0.5, 0.75)
    correlation = figures["length_correlation"]
    assert correlation is not None
    assert 0 < correlation < 1
