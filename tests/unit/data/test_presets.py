"""Presets, columns by path, chat-template arguments, and duplicate keys in a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from r1ray.config.schema import DataConfig, SourceConfig
from r1ray.data.presets import PRESETS
from r1ray.data.source import PromptSource
from r1ray.data.stores import parse_line
from r1ray.errors import ConfigError, DataError
from r1ray.rewards.answers.accuracy import VERIFIERS
from r1ray.rewards.base import Sample
from r1ray.types import PromptTask
from tests.unit.data_helpers import ByteTokenizer, write_jsonl

TESTS = json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]})
CASES = json.dumps([{"input": "1", "output": "2", "testtype": "stdin"}])
BOXED = "We find $1+1=2$, so the answer is $\\boxed{2}$."

SHAPES: dict[str, tuple[dict[str, Any], str, str]] = {  # row in the published shape, verifier, dropped shape's column
    "gsm8k": ({"question": "What is 1 + 1?", "answer": "It is two.\n#### 2"}, "numeric", ""),
    "math": (
        {"problem": "What is 1 + 1?", "level": "Level 1", "type": "Algebra", "solution": BOXED},
        "math",
        "",
    ),
    "dapo_17k": (
        {
            "data_source": "math_dapo",
            "prompt": [{"role": "user", "content": "What is 1 + 1?"}],
            "ability": "MATH",
            "reward_model": {"ground_truth": "2", "style": "rule"},
            "extra_info": {"index": "9a9b"},
        },
        "math",
        "",
    ),
    "numina_math": (
        {
            "source": "synthetic",
            "problem": "What is 1 + 1?",
            "solution": BOXED,
            "messages": [{"role": "user", "content": "What is 1 + 1?"}, {"role": "assistant", "content": BOXED}],
        },
        "math",
        "solution",
    ),
    "deepscaler": ({"problem": "What is 1 + 1?", "answer": "2", "solution": "So it is two."}, "math", ""),
    "livecodebench": (
        {
            "question_title": "A",
            "question_content": "What is 1 + 1?",
            "question_id": "abc_a",
            "starter_code": "",
            "public_test_cases": CASES,
            "private_test_cases": "",
            "metadata": "{}",
        },
        "code",
        "public_test_cases",
    ),
    "apps": (
        {"problem_id": 7, "question": "What is 1 + 1?", "solutions": "[]", "input_output": TESTS},
        "code",
        "input_output",
    ),
    "taco": (
        {"question": "What is 1 + 1?", "starter_code": "", "difficulty": "EASY", "input_output": TESTS},
        "code",
        "input_output",
    ),
}


def prompts(tokenizer: ByteTokenizer | None = None, *sources: SourceConfig, **data: Any) -> PromptSource:
    return PromptSource(sources, DataConfig(**{"template": "plain", **data}), tokenizer or ByteTokenizer(), 0)


def source(path: str, **keys: Any) -> SourceConfig:
    return SourceConfig(**{"name": "s", "kind": "jsonl", "path": path, **keys})


def test_every_preset_has_an_example() -> None:
    assert set(SHAPES) == set(PRESETS)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_preset_reads_the_published_shape(name: str, kind: str, tmp_path: Path) -> None:
    row, verifier, droppable = SHAPES[name]
    rows = [row, {**row, droppable: "no such thing here"}] if droppable else [row]
    path = str(tmp_path / f"a.{kind}")
    if kind == "jsonl":
        write_jsonl(Path(path), rows)
    else:
        parquet.write_table(pa.Table.from_pylist(rows), path)
    found = prompts(None, source(path, kind=kind, preset=name))
    task: PromptTask = found.task_at(0)
    assert task.messages == ({"role": "user", "content": "What is 1 + 1?"},)
    assert found.dropped == {"s": {"no_answer": 1} if droppable else {}}
    VERIFIERS[verifier]()(Sample(response="", answer=task.answer, meta=task.meta))  # accepts the answer or the tests


def test_the_source_overrides_its_preset(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Well?"}]
    path = write_jsonl(tmp_path / "a.jsonl", [{"chat": chat, "answer": "x ## 3 #### 4"}])
    found = prompts(None, source(path, preset="gsm8k", columns={"messages": "chat"}, params={"answer_after": "##"}))
    assert (found.task_at(0).messages, found.task_at(0).answer) == (tuple(chat), "4")


@pytest.mark.parametrize(("keys", "message"), [({"preset": "gsm8"}, "got 'gsm8'.*gsm8k"), ({"preset": ""}, "one of")])
def test_an_unknown_preset_is_refused(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prompts(None, source(write_jsonl(tmp_path / "a.jsonl", [{}]), **keys))


def test_a_preset_of_a_synthetic_task_is_refused() -> None:
    from r1ray.data.presets import with_preset

    with pytest.raises(ConfigError, match="only for jsonl, parquet and hf"):
        with_preset(SourceConfig(name="s", kind="synthetic", path="bus", preset="gsm8k"))


def test_a_path_reaches_into_objects_and_a_column_with_dots_wins(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "extra": {"deep": {"answer": "1"}}},
        {"prompt": "b", "extra.deep.answer": "2", "extra": {"deep": {"answer": "3"}}},
    ]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    found = prompts(None, source(path, columns={"answer": "extra.deep.answer"}), shuffle=False)
    assert [found.task_at(i).answer for i in range(2)] == ["1", "2"]
    with pytest.raises(ConfigError, match=r"a\.jsonl:1: the column 'extra\.other' is missing"):
        prompts(None, source(path, columns={"answer": "extra.other"}))
    parquet.write_table(pa.Table.from_pylist([{"prompt": "a", "extra": {"answer": "1"}}]), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"columns \['other'\] not found"):
        prompts(None, source(str(tmp_path / "a.parquet"), kind="parquet", columns={"answer": "other.answer"}))


def test_duplicate_keys_are_refused() -> None:
    with pytest.raises(DataError, match="the key 'answer' occurs twice"):
        parse_line(b'{"answer": "1", "prompt": "a", "answer": "2"}')
    with pytest.raises(DataError, match="the key 'x' occurs twice"):
        parse_line(b'{"meta": {"x": 1, "x": 1}}')


def test_arguments_reach_the_chat_template(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "a", "answer": "1"}])
    tokenizer = ByteTokenizer()
    prompts(tokenizer, source(path), template="tokenizer", template_args={"enable_thinking": False})
    assert tokenizer.template_args == {"enable_thinking": False}


@pytest.mark.parametrize(("template", "args"), [("plain", {"enable_thinking": False}), ("r1", {"tokenize": True})])
def test_arguments_that_the_template_cannot_take_are_refused(
    tmp_path: Path, template: str, args: dict[str, Any]
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "a", "answer": "1"}])
    with pytest.raises(ConfigError, match=r"data\.template_args"):
        prompts(None, source(path), template=template, template_args=args)


def test_an_exported_template_has_the_arguments_of_training_as_defaults() -> None:
    from jinja2 import Environment

    from r1ray.data.chat_template import chat_template

    own = "{% if enable_thinking %}on{% else %}off{% endif %}{{ budget }}"
    text = chat_template("tokenizer", ByteTokenizer(own), {"enable_thinking": False, "budget": 3})
    jinja = Environment(autoescape=False).from_string(text)
    assert jinja.render() == "off3"
    assert jinja.render(enable_thinking=True) == "on3"
