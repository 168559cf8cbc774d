"""Benchmarks: published rows become problems whose right answers are right, and what is not of the form is refused."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from r1ray.data.rows import Row, parse_row
from r1ray.errors import ConfigError
from r1ray.evaluation.benchmarks.prepare import Prepared, prepare
from r1ray.evaluation.benchmarks.registry import BENCHMARKS, SYNTHETIC_LIMIT, find
from r1ray.rewards.base import Call, Sample
from r1ray.rewards.execution.guest import _decoded_call
from r1ray.rewards.registry import build
from tests.unit.data_helpers import GSM8K, needs_gsm8k, write_jsonl

GPQA = {
    "Question": "Which is largest?", "Correct Answer": "a galaxy\n", "Incorrect Answer 1": "a star",
    "Incorrect Answer 2": "a planet", "Incorrect Answer 3": "a moon",
}  # fmt: skip
CASES = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]
PACKED = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(CASES)))).decode()
CONTEST = {
    "question_id": "abc_a", "question_content": "Add two numbers.", "starter_code": "", "metadata": "{}",
    "public_test_cases": json.dumps(CASES), "private_test_cases": PACKED,
}  # fmt: skip
LEETCODE = {
    **CONTEST, "starter_code": "class Solution:\n    def add(self, a, b):", "metadata": '{"func_name": "add"}',
    "public_test_cases": '[{"input": "1\\n2", "output": "3", "testtype": "functional"}]', "private_test_cases": "[]",
}  # fmt: skip
HUMANEVAL = {
    "task_id": "HumanEval/0", "prompt": "def add(a, b):\n", "test": "def check(f):\n    assert f(1, 2) == 3",
    "entry_point": "add", "canonical_solution": "    return a + b",
}  # fmt: skip
MBPP = {
    "task_id": 11,
    "text": "Add two numbers.",
    "test_list": ["assert add(1, 2) == 3"],
    "test_setup_code": "import math",
}
MMLU = {"question": "Which are even?", "subject": "arithmetic", "choices": ["2", "4", "7", "both A and B"], "answer": 3}
IFEVAL = {
    "key": 1, "prompt": "Say yes in capitals, without commas.",
    "instruction_id_list": ["punctuation:no_comma", "change_case:english_capital"], "kwargs": [{}, {"num_words": None}],
}  # fmt: skip

JUDGED = [
    ("aime24", {"problem": "What is 2^5?", "answer": "032", "year": 2024}, r"\boxed{32}", r"\boxed{33}"),
    ("aime25", {"problem": "What is 2^5?", "answer": 32}, r"\boxed{32}", r"\boxed{33}"),
    ("math500", {"problem": "Half?", "answer": r"\frac{1}{2}", "level": 1}, r"\boxed{0.5}", r"\boxed{0.4}"),
    ("gsm8k", {"question": "9 + 9?", "answer": "It is 18.\n#### 18"}, r"\boxed{18}", r"\boxed{19}"),
    ("gpqa_diamond", GPQA, r"\boxed{a galaxy}", r"\boxed{a star}"),
    ("mmlu", MMLU, r"\boxed{D}", r"\boxed{A}"),
    ("ifeval", IFEVAL, "YES YES", "YES, YES"),
]


def prepared(tmp_path: Path, name: str, *raw: Any, **options: Any) -> Prepared:
    path = write_jsonl(tmp_path / "rows.jsonl", list(raw))
    return prepare(find(name), {name: path}, options.get("limit"))


def problems(made: Prepared) -> list[Row]:
    assert made.rows is not None
    return [parse_row(json.loads(line), i, {}) for i, line in enumerate(made.rows.decode().splitlines())]


def judged(made: Prepared, response: str) -> float | Call:
    (row,) = problems(made)
    found = build(made.reward.name, made.reward.params)(Sample(response=response, answer=row.answer, meta=row.meta))
    assert isinstance(found, float | Call)
    return found


@pytest.mark.parametrize(("name", "raw", "right", "wrong"), JUDGED)
def test_a_published_row_is_asked_and_judged(tmp_path: Path, name: str, raw: Any, right: str, wrong: str) -> None:
    made = prepared(tmp_path, name, raw)
    (row,) = problems(made)
    asked = raw[find(name).question].strip()
    assert row.messages[-1]["content"].startswith(asked)
    assert judged(made, f"<think>so</think>{right}") == 1.0
    assert judged(made, f"<think>so</think>{wrong}") == 0.0


@pytest.mark.parametrize(
    ("name", "raw", "tests"),
    [
        ("humaneval", HUMANEVAL, {"kind": "calls", "names": ["add"], "calls": []}),
        ("mbpp", MBPP, {"kind": "calls", "asserts": ["assert add(1, 2) == 3"], "setup": "import math"}),
        ("livecodebench", CONTEST, {"kind": "stdio", "cases": [{"stdin": "1 2\n", "stdout": "3\n"}] * 2}),
        ("livecodebench", LEETCODE, {"calls": [{"function": "add", "args": [1, 2], "expected": 3}]}),
    ],
)
def test_a_program_is_run_on_the_tests_of_its_row(tmp_path: Path, name: str, raw: Any, tests: dict[str, Any]) -> None:
    call = judged(prepared(tmp_path, name, raw), "```python\ndef add(a, b): return a + b\n```")
    assert isinstance(call, Call)
    sent = json.loads(call.args["tests"])
    sent["calls"] = [_decoded_call(c) for c in sent["calls"]]
    assert tests.items() <= sent.items()


def test_the_starter_code_is_shown(tmp_path: Path) -> None:
    (row,) = problems(prepared(tmp_path, "livecodebench", LEETCODE))
    assert "class Solution:" in row.messages[0]["content"]


def test_the_options_of_gpqa_are_shuffled_always_alike_and_those_of_mmlu_stay(tmp_path: Path) -> None:
    many = [{**GPQA, "Question": f"Which is largest of set {i}?"} for i in range(40)]
    first, again = (problems(prepared(tmp_path, "gpqa_diamond", *many)) for _ in range(2))
    assert first == again
    assert {row.answer["answer"] for row in first} == set("ABCD")
    for row in first:
        assert row.answer["choices"]["ABCD".index(row.answer["answer"])] == "a galaxy"
        assert f"{row.answer['answer']}. a galaxy" in row.messages[0]["content"]
    (mmlu,) = problems(prepared(tmp_path, "mmlu", MMLU))
    assert (mmlu.answer, mmlu.meta) == ({"answer": "D", "choices": MMLU["choices"]}, {"domain": "arithmetic"})


@needs_gsm8k
def test_all_of_gsm8k_is_read_from_its_file_and_from_its_folder() -> None:
    from_file, from_folder = (prepare(find("gsm8k"), {"gsm8k": str(p)}, None) for p in (GSM8K / "test.jsonl", GSM8K))
    assert from_file.problems == 1319
    assert from_file.rows == from_folder.rows
    assert prepare(find("gsm8k"), {"gsm8k": str(GSM8K)}, 10).problems == 10


def test_parquet_is_read_too(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.Table.from_pylist([MMLU, {**MMLU, "answer": 0}]), tmp_path / "a.parquet")
    made = prepare(find("mmlu"), {"mmlu": str(tmp_path / "a.parquet")}, None)
    assert [row.answer["answer"] for row in problems(made)] == ["D", "A"]


def test_what_is_asked_has_a_digest(tmp_path: Path) -> None:
    one, same, other = (
        prepared(tmp_path, "gsm8k", {"question": "9 + 9?", "answer": a}).digest
        for a in ("#### 18", "#### 18", "#### 19")
    )
    assert one == same != other
    digests = {
        prepare(find(spec), {}, limit).digest for spec, limit in [("bus", None), ("bus", 9), ("bus:n=4-7", None)]
    }
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("name", "raw", "told"),
    [
        ("gsm8k", {"prompt": "9 + 9?", "answer": "#### 18"}, "the column 'question' is missing"),
        ("gsm8k", {"question": "9 + 9?", "answer": "18"}, "does not hold the mark"),
        ("gsm8k", ["no", "object"], "the column 'question' is missing"),
        ("mmlu", {**MMLU, "answer": 4}, "the right one is number 4"),
        ("mmlu", {**MMLU, "answer": "D"}, "invalid literal"),
        ("livecodebench", {**CONTEST, "private_test_cases": "???"}, "neither JSON nor compressed"),
        ("livecodebench", {**CONTEST, "metadata": "no"}, "the metadata cannot be read"),
        ("ifeval", {**IFEVAL, "kwargs": []}, "argument 2 is shorter"),
    ],
)
def test_a_row_of_another_form_is_refused_with_its_place(tmp_path: Path, name: str, raw: Any, told: str) -> None:
    good = next(raw for known, raw, *_ in [*JUDGED, ("livecodebench", CONTEST, "", "")] if known == name)
    with pytest.raises(ConfigError, match=f"the benchmark {name} cannot be read at .*rows.jsonl:2: .*{told}"):
        prepared(tmp_path, name, good, raw)


def test_places_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        prepare(find("gsm8k"), {"gsm8k": str(tmp_path / "nowhere.jsonl")}, None)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ConfigError, match="has no problems"):
        prepare(find("gsm8k"), {"gsm8k": str(tmp_path / "empty.jsonl")}, None)
    (tmp_path / "rows.csv").write_text("question,answer")
    with pytest.raises(ConfigError, match=r"expected a \.jsonl or \.parquet file"):
        prepare(find("gsm8k"), {"gsm8k": str(tmp_path / "rows.csv")}, None)
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_text("")
    with pytest.raises(ConfigError, match="cannot load the data set"):
        prepare(find("gsm8k"), {"gsm8k": str(tmp_path / "script")}, None)
    with pytest.raises(ConfigError, match="makes its own problems"):
        prepare(find("bus"), {"bus": "bus.jsonl"}, None)


def test_synthetic_tasks_are_benchmarks_with_parameters(tmp_path: Path) -> None:
    made = prepare(find("bus:n=4-7"), {}, None)
    source = made.source(tmp_path)
    assert (source.kind, source.path, source.split) == ("synthetic", "bus", "heldout")
    assert (source.params, source.limit) == ({"n": [4, 7]}, SYNTHETIC_LIMIT)
    assert (made.reward.name, made.reward.params) == ("accuracy/bus_n_4-7", {"verifier": "task"})
    assert find("transpose").verifier == "code"
    assert find("writing").verifier == "instructions"


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("gms8k", "did you mean gsm8k"),
        ("zzz", "there are aime24"),
        ("gsm8k:n=4", "only synthetic"),
        ("bus:n", "key=value"),
    ],
)
def test_an_unknown_benchmark_is_refused_by_name(spec: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        find(spec)


def test_the_benchmarks_of_the_paper_have_its_number_of_samples() -> None:
    found = {name: BENCHMARKS[name].k for name in ("aime24", "gpqa_diamond", "math500", "livecodebench")}
    assert found == {"aime24": 64, "gpqa_diamond": 64, "math500": 16, "livecodebench": 8}
