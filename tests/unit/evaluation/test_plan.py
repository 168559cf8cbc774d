"""What `r1ray eval` makes of its command line, what it refuses, and what it writes at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r1ray.errors import ConfigError
from r1ray.evaluation.plan import EvaluationPlan, Request, make_plan, resumed_plan
from r1ray.evaluation.record import check_same, contamination, write_record, write_results
from r1ray.run.folder import RunFolder
from r1ray.run.identity import RunIdentity
from r1ray.sampling.store import Part, SampleRow, write_shard
from r1ray.util.machine import Machine
from tests.unit.data_helpers import write_jsonl
from tests.unit.model_folder import write_model

MACHINE = Machine(cores=2, memory_bytes=16 << 30, shared_memory_bytes=8 << 30, gpu_memory_bytes=(), cpu_bfloat16=True)
QUESTIONS = [f"Ann has {i} apples and buys {i} more at the shop; how many has she now?" for i in range(6)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
def gsm8k(tmp_path: Path) -> str:
    rows = [{"question": q, "answer": f"#### {2 * i}"} for i, q in enumerate(QUESTIONS)]
    return write_jsonl(tmp_path / "gsm8k.jsonl", rows)


def plan(model: Path, *names: str, keys: tuple[str, ...] = (), out: str = "eval", **options: Any) -> EvaluationPlan:
    request = Request(**{"data": {}, "benchmarks": names, **options})
    return make_plan(model, model.parent / out, request, [], keys, MACHINE)


def test_unset_options_follow_from_model_and_machine(model: Path) -> None:
    config = plan(model, "bus").loaded.config
    assert (config.model.max_length, config.data.max_prompt_tokens, config.rollout.max_new_tokens) == (256, 128, 128)
    assert (config.data.template, config.rollout.num_gpus, config.rollout.engine.enforce_eager) == ("plain", 0.0, True)
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert plan(model, "bus").loaded.config.data.template == "tokenizer"
    assert plan(model, "bus", keys=("data.template=r1",)).loaded.config.data.template == "r1"


def test_each_benchmark_has_its_judge_and_all_have_the_other_rewards(model: Path, gsm8k: str) -> None:
    rewards = "rewards=[{name: accuracy, params: {verifier: exact}}, {name: format, weight: 0.5}]"
    made = plan(model, "bus:n=4-5", "gsm8k", keys=(rewards,), data={"gsm8k": gsm8k})
    config = made.loaded.config
    verifiers = {r.name: r.params.get("verifier") for r in config.rewards}
    assert verifiers == {"accuracy/bus_n_4-5": "task", "accuracy/gsm8k": "math", "format": None}
    assert {s.name: s.rewards for s in config.data.evaluation} == {
        "bus:n=4-5": ["accuracy/bus_n_4-5", "format"],
        "gsm8k": ["accuracy/gsm8k", "format"],
    }
    assert config.data.train == []


def test_samples_are_those_of_the_benchmark_unless_told(model: Path, gsm8k: str) -> None:
    data = {"gsm8k": gsm8k}
    own = plan(model, "bus", "gsm8k", data=data).wanted
    told = plan(model, "bus", "gsm8k", data=data, k=3, temperature=1.0, max_new_tokens=7).wanted
    assert {w.source: w.samples for w in own} == {"bus": 4, "gsm8k": 1}
    assert {w.source: w.samples for w in told} == {"bus": 3, "gsm8k": 3}
    assert (own[0].sampling.temperature, own[0].sampling.top_p, own[0].sampling.seed) == (0.6, 0.95, 0)
    assert (told[0].sampling.temperature, told[0].sampling.max_new_tokens) == (1.0, 7)
    assert plan(model, "bus", k=1, temperature=0.0).wanted[0].sampling.temperature == 0.0


@pytest.mark.parametrize(
    ("names", "options", "told"),
    [
        ((), {}, "name at least one"),
        (("bsu",), {}, "did you mean bus"),
        (("gsm8k",), {"data": {"gsm8k": "nowhere.jsonl"}}, "no such file"),
        (("bus",), {"data": {"gsm8k": "x.jsonl"}}, "not among --benchmarks"),
        (("bus",), {"k": 2, "temperature": 0.0}, "-k 1"),
        (("bus",), {"top_p": 0.0}, "--top-p: expected a number > 0 and <= 1, got 0"),
        (("bus",), {"max_new_tokens": 200}, "does not fit"),
        (("bus",), {"against": ("nowhere.jsonl",)}, "nowhere.jsonl"),
        (("bus",), {"keys": ("run.dir=elsewhere",)}, "leave these keys out"),
        (("bus",), {"keys": ("rollout.workers=0",)}, "rollout.workers"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    model: Path, names: tuple[str, ...], options: Any, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        plan(model, *names, **{"against": (), **options})
    assert not (model.parent / "eval").exists()


def test_overlap_is_of_the_questions_alone(model: Path, gsm8k: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": f"Think hard! {QUESTIONS[2].upper()}", "answer": "4"},
        {"prompt": "What else? Put your final answer within \\boxed{}. Put your final answer within \\boxed{}.", "answer": "0"},
        {"messages": [{"role": "user", "content": QUESTIONS[4]}, {"role": "assistant", "content": "8"}]},
        {"question": "Bob has five pears and eats six of them on one day; how many?", "answer": "#### 0"},
    ]  # fmt: skip
    against = write_jsonl(tmp_path / "train.jsonl", rows)
    prepared = plan(model, "gsm8k", "bus", data={"gsm8k": gsm8k}).prepared
    assert contamination(prepared, [against]) == {"gsm8k": ["2", "4"]}
    assert contamination(prepared, []) == {}


def folder_of(made: EvaluationPlan) -> RunFolder:
    identity = RunIdentity.new(vocab_hash="v", config_hash="c", model_hash="m", use="eval")
    with RunFolder.create(Path(made.loaded.config.run.dir), made.loaded.to_yaml(), identity) as folder:
        for each in made.prepared:
            each.write(folder.path)
        write_record(folder.path, made.record)
        (folder.path / "samples").mkdir()
    return folder


def test_only_the_same_evaluation_goes_on_in_a_folder(model: Path, gsm8k: str) -> None:
    data = {"gsm8k": gsm8k}
    made = plan(model, "gsm8k", data=data)
    folder = folder_of(made)
    check_same(folder, made.record, made.loaded)
    again = resumed_plan(folder.path, [], ["rollout.workers=2"], MACHINE)
    check_same(folder, again.record, again.loaded)  # where it runs may change
    for options, told in (
        ({"k": 9}, "give another --out"),
        ({"limit": 3}, "give another --out"),
        ({"keys": ("run.seed=1",)}, "run.seed"),
    ):
        other = plan(model, "gsm8k", data=data, **options)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=told):
            check_same(folder, other.record, other.loaded)
    Path(gsm8k).write_text(json.dumps({"question": "Else?", "answer": "#### 1"}))
    changed = plan(model, "gsm8k", data=data)
    with pytest.raises(ConfigError, match="benchmarks"):
        check_same(folder, changed.record, changed.loaded)


def test_the_folder_of_another_command_is_refused(model: Path) -> None:
    made = plan(model, "bus")
    identity = RunIdentity.new(vocab_hash="v", config_hash="c", model_hash="m", use="sample")
    with RunFolder.create(Path(made.loaded.config.run.dir), made.loaded.to_yaml(), identity) as folder:
        with pytest.raises(ConfigError, match="is a run of `r1ray sample`"):
            check_same(folder, made.record, made.loaded)
    with pytest.raises(ConfigError, match="holds no evaluation"):
        resumed_plan(folder.path, [], [], MACHINE)


def row(index: int, sample: int, answer: str, right: float) -> SampleRow:
    return SampleRow(
        source="gsm8k", prompt_id=f"gsm8k/{index}", index=index, sample=sample, answer=str(2 * index), meta={},
        messages=({"role": "user", "content": QUESTIONS[index]},), response=answer, tokens=4 + sample, error=None,
        finish_reason="stop", reward=right, parts={"accuracy/gsm8k": right, "format": 0.5}, answer_text=answer,
    )  # fmt: skip


def test_results_have_figures_and_published_ones_apart(model: Path, gsm8k: str, tmp_path: Path) -> None:
    against = write_jsonl(tmp_path / "train.jsonl", [{"prompt": QUESTIONS[1], "answer": "2"}])
    made = plan(model, "gsm8k", data={"gsm8k": gsm8k}, k=3, limit=2, against=(against,))
    folder = folder_of(made).path
    # of the second problem two spellings of one wrong answer outvote the right one, once they are compared
    answers = [[("0", 1.0), ("0", 1.0), ("7", 0.0)], [("2", 1.0), (r"\frac{x+1}{2}", 0.0), (r"\frac{1+x}{2}", 0.0)]]
    for i, samples in enumerate(answers):
        rows = [row(i, j, text, right) for j, (text, right) in enumerate(samples)]
        write_shard(folder / "samples", Part(source="gsm8k", start=i, stop=i + 1), rows)
    results = write_results(folder, made.record, made.prepared)
    (told,) = results["rows"]
    assert (told["problems"], told["samples"], told["contaminated"]) == (2, 3, 1)
    assert told["accuracy"] == pytest.approx(0.5)
    assert told["consensus"] == 0.5
    assert told["parts"] == {"accuracy": 0.5, "format": 0.5}
    assert json.loads((folder / "results.json").read_text()) == results
    text = (folder / "results.md").read_text()
    assert "| gsm8k | 2 | 3 | 50.0% ± 16.7% |" in text
    assert f"10-grams in common with {against}" in text
    assert "Published" not in text  # no figure of it was published


def test_published_figures_are_marked(model: Path, tmp_path: Path) -> None:
    from r1ray.evaluation.published import published
    from r1ray.evaluation.record import to_markdown

    rows = published("aime24")
    assert all(r["published"] is True for r in rows)
    assert {(r["model"], r["accuracy"], r.get("consensus")) for r in rows} >= {
        ("DeepSeek-R1", 0.798, None),
        ("DeepSeek-R1-Zero", 0.71, 0.867),
    }
    measured = {
        "benchmark": "aime24", "problems": 30, "samples": 1, "errors": {}, "accuracy": 0.1, "accuracy_se": 0.05,
        "pass_at": {"1": 0.1}, "pass_at_se": {"1": 0.05}, "consensus": None, "length": 9.0, "truncated": 0.0,
        "published": rows,
    }  # fmt: skip
    text = to_markdown({"model": "m", "rows": [measured], "against": [], "overlap": {}})
    above, below = text.split("Published, not measured here")
    assert "DeepSeek" not in above
    assert "| aime24 | DeepSeek-R1 | 79.8% | – | v1 |" in below
