"""`r1ray data check`."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from typer.testing import CliRunner

from r1ray.cli import build_app
from r1ray.data.files import FileParams
from r1ray.data.rows import parse_row
from r1ray.data.stores import parse_line
from r1ray.errors import ConfigError, DataError
from r1ray.rewards.data_check import check_file
from tests.unit.data_helpers import GSM8K, needs_gsm8k

GOOD = '{"prompt": "What is 1 + 1?", "answer": "2"}'

FAULTS = {
    "{": "not JSON",
    '{"prompt": "a", "answer": NaN}': "NaN is not a JSON number",
    "[" * 100_000: "not usable JSON",
    "9" * 5_000: "not usable JSON",
    "[1]": "expected an object",
    '{"answer": "2"}': "needs one of the columns 'prompt' or 'messages', this one has neither",
    '{"prompt": "a", "messages": [], "answer": "2"}': "this one has both",
    '{"prompt": " ", "answer": "2"}': "the prompt is empty",
    '{"prompt": 7, "answer": "2"}': "the prompt: expected text, got 7",
    '{"prompt": "\\ud800", "answer": "2"}': "half of a surrogate pair",
    '{"prompt": "a", "answer": "\\ud800"}': "half of a surrogate pair",
    '{"prompt": "a"}': "the answer (column 'answer') is missing or null",
    '{"prompt": "a", "answer": null}': "the answer (column 'answer') is missing or null",
    '{"prompt": "a", "answer": " \\t"}': "the answer (column 'answer') is ' \\t': expected text or a number",
    '{"prompt": "a", "answer": 1e999}': "the answer (column 'answer') is inf: expected text or a number",
    '{"prompt": "a", "answer": ' + "9" * 30 + "}": "beyond 64 bits",
    '{"prompt": "a", "answer": ' + "[" * 50 + "]" * 50 + "}": "nested deeper than 32 levels",
    '{"prompt": "a", "answer": "2", "pass_rate": 1.5}': "the pass rate: expected a number from 0 to 1, got 1.5",
    '{"messages": [], "answer": "2"}': "messages: expected a list",
    '{"messages": [{"role": "tool", "content": "a"}], "answer": "2"}': "message 0: expected a role, one of",
    '{"messages": [{"role": "user", "content": ""}], "answer": "2"}': "the content of message 0 is empty",
    '{"messages": [{"role": "assistant", "content": "a"}], "answer": "2"}': "got the assistant's",
    '{"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}], "answer": "2"}': (
        "message 1 is a system message"
    ),
}


def faults(path: Path, **columns: str) -> dict[int, str | None]:
    return {row.number: row.fault for row in check_file(path, columns, FileParams())}


def test_faults_are_reported_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f"{GOOD}\n{bad}\n" for bad in FAULTS), encoding="utf-8")
    found = faults(path)
    assert [n for n, fault in found.items() if fault is None] == list(range(1, 2 * len(FAULTS), 2))
    for number, (bad, expected) in zip(range(2, 2 * len(FAULTS) + 1, 2), FAULTS.items(), strict=True):
        assert expected in (found[number] or ""), (bad[:80], found[number])


def test_invalid_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b"\n\n" + GOOD.encode()[:-3] + b'\xff"}\n' + b"\0\0\n")
    assert faults(path) == {
        1: None,
        3: "not UTF-8: invalid start byte at byte 40",
        4: "not JSON: Expecting value at character 0",
    }


def test_oversized_line_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1ray.rewards.data_check.MAX_LINE_BYTES", 1 << 20)
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"prompt": "{"x" * (5 << 20)}", "answer": "2"}}\n{GOOD}\n', encoding="utf-8")
    assert faults(path) == {1: "longer than 1 MiB", 2: None}


def test_memory_stays_flat(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for _ in range(20_000):
            file.write(GOOD + "\n")
    tracemalloc.start()
    try:
        assert sum(row.fault is None for row in check_file(path, {}, FileParams())) == 20_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500_000  # the file has 900,000 bytes


def test_parquet_rows_are_checked_alike(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.Table.from_pylist([{"q": "a", "answer": "b"}, {"q": "", "answer": "b"}]), path)
    assert faults(path, prompt="q") == {1: None, 2: "the prompt is empty"}
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        faults(path)


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_line_is_a_row_or_a_fault(line: bytes) -> None:
    try:
        row = parse_row(parse_line(line), 0, {})
    except DataError:
        return
    assert row.messages[-1]["content"].strip()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["prompt", "messages", "answer", "id", "pass_rate"]), json_values))
@settings(max_examples=300, deadline=None)
def test_any_object_is_a_row_that_can_be_packed_or_a_fault(raw: dict[str, object]) -> None:
    import msgpack

    try:
        row = parse_row(raw, 0, {})
    except DataError:
        return
    assert msgpack.packb({"answer": row.answer, "meta": row.meta, "messages": list(row.messages)})


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(build_app(), ["data", "check", *arguments])
    if isinstance(result.exception, ConfigError):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_command_reports_faults_and_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{GOOD}\n{{"prompt": "a"}}\n', encoding="utf-8")
    code, out, err = run(str(path))
    assert code == 1
    assert out == f"{path}:2: the answer (column 'answer') is missing or null\n"
    assert err == "2 rows, 1 faulty\n"


def test_command_maps_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"q": "a", "a": "so #### 7"}) + "\n", encoding="utf-8")
    columns = ("--column", "prompt=q", "--column", "answer=a")
    assert run(str(path), *columns, "--answer-after", "####") == (0, "", "1 rows, 0 faulty\n")
    assert run(str(path), *columns, "--answer-after", "@@")[1].endswith("the answer does not contain the mark '@@'\n")


CHAT = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"problem": "1 + 1?", "messages": CHAT}, "prompt=problem"),
        ({"prompt": "1 + 1?", "messages": CHAT}, "prompt=prompt"),
        ({"prompt": "1 + 1, then?", "messages": CHAT[:1]}, "messages=messages"),
        ({"prompt": CHAT[:1]}, "messages=prompt"),
    ],
)
def test_configured_column_wins_over_prompt_and_messages(tmp_path: Path, row: dict[str, Any], column: str) -> None:
    row = {**row, "answer": "2"}
    name, _, place = column.partition("=")
    assert parse_row(row, 0, {name: place}).messages == tuple(CHAT[:1])
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert run(str(path), "--column", column) == (0, "", "1 rows, 0 faulty\n")


def test_null_in_a_configured_column_is_one_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": None, "answer": "2", "messages": CHAT[:1]}) + "\n", encoding="utf-8")
    assert faults(path, prompt="prompt") == {1: "the column 'prompt' (columns.prompt) is null"}


@pytest.mark.parametrize(
    ("reward", "good", "bad", "message"),
    [
        ("numeric", "3/4", "three", "the answer 'three' is no number"),
        (
            "choice",
            {"answer": "B", "choices": ["1", "2"]},
            {"answer": 2, "choices": ["1", "2"]},
            "2, is no place among",
        ),
        ("code", {"asserts": ["assert f(1) == 2"]}, {"assert": "f(1) == 2"}, "none of the known shapes"),
        (
            "code",
            {"tests": [{"stdin": "1", "stdout": "2"}], "language": "bash"},
            {"tests": [{"stdin": "1", "stdout": "2"}], "language": "ruby"},
            "the recorded language is 'ruby'",
        ),
        (
            "instructions",
            {"instructions": [{"id": "punctuation:no_comma"}]},
            {"instructions": [{"id": "nonsense"}]},
            "unknown instruction 'nonsense'",
        ),
        ("math", "\\frac{1}{2}", ["1"], "expected text or a number"),
    ],
)
def test_ground_truth_that_the_verifier_cannot_use_is_a_fault(
    tmp_path: Path, reward: str, good: object, bad: object, message: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"prompt": "a", "answer": a}) + "\n" for a in (good, bad)), encoding="utf-8")
    assert run(str(path)) == (0, "", "2 rows, 0 faulty\n")
    code, out, err = run(str(path), "--reward", reward)
    assert (code, err) == (1, "2 rows, 1 faulty\n")
    assert out.startswith(f"{path}:2: ")
    assert message in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.jsonl", "--reward", "fluency"], "--reward: expected one of math, choice"),
        (["nowhere.jsonl"], "nowhere.jsonl cannot be read: No such file"),
        (["/dev/null"], "has no rows"),
        (["x.jsonl", "--column", "prompt"], "--column: expected FIELD=COLUMN, e.g. prompt=question, got .prompt."),
    ],
)
def test_command_refuses_unreadable_files(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(*arguments)


@needs_gsm8k
def test_gsm8k_has_no_faults() -> None:
    params = FileParams(answer_after="####")
    rows = list(check_file(GSM8K / "train.jsonl", {"prompt": "question"}, params))
    assert len(rows) == 7473
    assert [row for row in rows if row.fault] == []
