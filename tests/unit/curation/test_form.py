"""From what was sampled to thinking and summary, and general data to the dataset's form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r1ray.config.schema import CurationConfig, GeneralConfig
from r1ray.curation.form import think_summary
from r1ray.curation.general import check_general, general_rows
from r1ray.errors import ConfigError
from r1ray.rewards.base import Sample
from r1ray.rewards.text.format import Format

SENTENCE = "The answer is {answer}."


@pytest.mark.parametrize(
    ("text", "summary", "closing"),
    [
        ("<think>7+5=12</think><answer>12</answer>", SENTENCE, "The answer is 12."),
        (" <think> 7+5=12\n</think>\n <answer> 12 </answer> ", r"So \boxed{{answer}}.", r"So \boxed{12}."),
        ("<think>7+5=12</think> It is 12.", SENTENCE, "It is 12."),
        (r"<think>7+5=12</think><answer>It is \boxed{12}.</answer>", SENTENCE, r"It is \boxed{12}."),
        ("<think>7+5=12</think><answer>Two lines:\n12</answer>", SENTENCE, "Two lines:\n12"),
        ("<think>7+5=12</think>So it is <answer>12</answer> then.", SENTENCE, "So it is\n\n12\n\nthen."),
    ],
)
def test_thinking_and_a_summary_are_made_of_a_response(text: str, summary: str, closing: str) -> None:
    formed = think_summary(text, summary)
    assert formed == f"<think>\n7+5=12\n</think>\n\n{closing}"
    assert Format(style="think")(Sample(response=formed)) == 1.0
    assert think_summary(formed, summary) == formed


@pytest.mark.parametrize(
    "text",
    [
        "The answer is 12.",
        "<think>7+5=12",
        "<think></think><answer>12</answer>",
        "<think>7+5=12</think>",
        "<think>7+5=12</think><answer> </answer>",
        "<think>a</think>b<think>c</think>d",
        "<think>7+5=12</think><answer>1</answer><answer>2</answer>",
    ],
)
def test_what_has_no_thinking_and_one_answer_cannot_be_converted(text: str) -> None:
    assert think_summary(text, SENTENCE) is None


def write(folder: Path, *rows: Any) -> GeneralConfig:
    (folder / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return GeneralConfig(name="chat", path=str(folder / "chat.jsonl"))


def test_trivial_prompts_get_no_chain_of_thought(tmp_path: Path) -> None:
    thought = "<think>They greet me.</think>\n\nHello!"
    source = write(
        tmp_path,
        {"prompt": "Hi there", "response": thought},
        {"prompt": "Write me a poem of four lines", "response": thought, "domain": "writing"},
        {"prompt": "Write me a poem of four lines", "response": thought, "trivial": True},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}], "id": "x"},
    )
    rows = list(general_rows(CurationConfig(general=[source], direct_below_words=3)))
    assert [row.response for row in rows] == ["Hello!", thought, "Hello!", "Hello!"]
    assert [row.domain for row in rows] == ["chat", "writing", "chat", "chat"]
    assert rows[3].row_id == "x"
    empty = CurationConfig(general=[source], direct_below_words=3, empty_thinking=True)
    greeting = "<think>\n\n</think>\n\nHello!"
    assert [row.response for row in general_rows(empty)] == [greeting, thought, greeting, greeting]
    kept = list(
        general_rows(CurationConfig(general=[source], empty_thinking=True))
    )  # a long answer without thinking, too
    assert [row.response for row in kept] == [thought, thought, greeting, greeting]
    assert next(general_rows(CurationConfig(general=[source]))).response == thought
    assert check_general(empty) == {"chat": 4}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "Hi"}, r"chat\.jsonl:1: a row needs a response"),
        ({"prompt": "Hi", "response": "<think>They greet me", "trivial": True}, "thinking without an answer"),
    ],
)
def test_a_malformed_row_of_general_data_is_told_with_its_place(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_general(CurationConfig(general=[write(tmp_path, row)]))


def test_general_data_that_is_empty_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the source chat of curation\.general has no rows"):
        check_general(CurationConfig(general=[write(tmp_path)]))
    with pytest.raises(ConfigError, match="does not exist"):
        check_general(CurationConfig(general=[GeneralConfig(name="chat", path=str(tmp_path / "none.jsonl"))]))
