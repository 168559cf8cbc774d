"""What a prompt has opened, every reward knows: from the template to the verdict, with nothing configured by hand."""

from __future__ import annotations

from typing import Any

import pytest

from r1ray.config.schema import DataConfig
from r1ray.data.framing import Framer
from r1ray.data.rows import Row
from r1ray.data.templates import as_messages
from r1ray.evaluation.benchmarks.base import Benchmark
from r1ray.evaluation.benchmarks.prepare import prepare
from r1ray.evaluation.benchmarks.registry import BENCHMARKS, find
from r1ray.rewards.answers.answer import opening
from r1ray.rewards.answers.canonical import canonical_answer
from r1ray.rewards.base import Call, Sample
from r1ray.rewards.offline import sample_of
from r1ray.rewards.registry import build
from r1ray.rewards.text.format import Format
from tests.unit.data_helpers import ByteTokenizer

PROGRAM = "```python\nprint(5)\n```"
TESTS = [{"stdin": "", "stdout": "5"}]


def framed(template: str, chat: str, answer: Any) -> Row:
    row = Row(row_id="0", messages=as_messages("What is 2 + 3?"), answer=answer)
    made = Framer(DataConfig(template=template), ByteTokenizer(chat)).frame(row)
    assert made is not None
    return made.row


def judged(benchmark: Benchmark, row: Row, response: str) -> float | Call:
    """As `r1ray eval` has it judged, of a completion that was cut off."""
    params = {"verifier": benchmark.verifier}
    sample = Sample(response=response, answer=row.answer, meta=row.meta, finish_reason="length")
    value = build("accuracy", params)(sample)
    assert isinstance(value, float | Call)
    return value


@pytest.mark.parametrize(("template", "chat"), [("r1", "bytes"), ("tokenizer", "thinking")])
@pytest.mark.parametrize(
    ("name", "answer", "thought"),
    [
        ("aime24", "5", "So perhaps \\boxed{5}, but wait"),
        ("gpqa_diamond", {"answer": "B", "choices": ["4", "5"]}, "It may be \\boxed{B}, but wait"),
        ("livecodebench", TESTS, f"I might write\n{PROGRAM}\nbut wait"),
        ("humaneval", {"asserts": ["assert True"]}, f"{PROGRAM}\nbut wait"),
        ("ifeval", {"instructions": [{"id": "change_case:english_lowercase"}]}, "hm, but wait"),
    ],
)
def test_answer_inside_unfinished_thinking_does_not_count(
    template: str, chat: str, name: str, answer: Any, thought: str
) -> None:
    row, benchmark = framed(template, chat, answer), BENCHMARKS[name]
    assert judged(benchmark, row, thought) == 0.0
    assert canonical_answer(thought, "length", opened=bool(opening(row.meta))) is None
    assert judged(benchmark, row, f"hm</think>{thought.removesuffix('but wait')}") != 0.0


def test_opening_reaches_benchmarks_of_synthetic_tasks() -> None:
    made = prepare(find("bus"), {}, 1)
    row = framed("r1", "bytes", 5)
    meta = {**row.meta, "synthetic": "bus", "params": {}}
    sample = Sample(response="\\boxed{5} or", answer=5, meta=meta, finish_reason="length")
    assert build(made.reward.name, made.reward.params)(sample) == 0.0


def test_without_an_opening_the_response_is_the_answer() -> None:
    row = framed("plain", "bytes", "5")
    assert "opening" not in row.meta
    assert judged(BENCHMARKS["aime24"], row, "\\boxed{5}") == 1.0
    chess = Sample(response="\\boxed{5}", answer="5", meta={"opening": "Sicilian defence"})
    assert not chess.opened
    assert build("accuracy", {})(chess) == 1.0


def test_format_and_language_include_the_opening() -> None:
    meta = framed("r1", "bytes", "5").meta
    sample = Sample(response="Two and three are five, so</think>Five.", meta=meta, messages=as_messages("What is it?"))
    assert Format(style="think")(sample) == 1.0
    assert build("language", {})(sample) == 1.0


def test_opening_in_a_scored_file() -> None:
    line = {"response": "so \\boxed{5}", "answer": "5", "finish_reason": "length"}
    assert build("accuracy", {})(sample_of(line)) == 1.0
    assert build("accuracy", {})(sample_of({**line, "opening": "<think>"})) == 0.0
