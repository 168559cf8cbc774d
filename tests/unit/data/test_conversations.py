"""Rows for supervised training: whatever columns they come in, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from r1ray.config.schema import SourceConfig
from r1ray.data.conversations import CONVERSATION_FIELDS, parse_conversation
from r1ray.data.stores import open_rows
from r1ray.errors import DataError

USER = {"role": "user", "content": "Hello"}
ASSISTANT = {"role": "assistant", "content": "Good day."}


@pytest.mark.parametrize(
    "raw",
    [
        {"messages": [USER, ASSISTANT]},
        {"prompt": "Hello", "response": "Good day."},
        {"messages": [USER], "response": "Good day."},
    ],
)
def test_the_forms_of_a_row_mean_the_same(raw: dict[str, Any]) -> None:
    row = parse_conversation(raw, 3, {})
    assert row.prompt == (USER,)
    assert row.response == "Good day."
    assert (row.row_id, row.domain, row.trivial) == ("3", None, False)


def test_columns_are_mapped_and_optional_ones_are_read() -> None:
    raw = {"q": "Hello", "a": "Good day.", "id": 7, "domain": "chat", "trivial": True}
    row = parse_conversation(raw, 0, {"prompt": "q", "response": "a"})
    assert (row.row_id, row.domain, row.trivial) == ("7", "chat", True)


ULTRACHAT = {"prompt": "Hello", "prompt_id": "f0", "messages": [USER, ASSISTANT]}


@pytest.mark.parametrize(
    ("raw", "columns"),
    [
        (ULTRACHAT, {"messages": "messages"}),
        ({**ULTRACHAT, "answer": "Good day."}, {"prompt": "prompt", "response": "answer"}),
        ({"prompt": [USER, ASSISTANT]}, {"messages": "prompt"}),
        ({"prompt": [USER], "answer": "Good day."}, {"messages": "prompt", "response": "answer"}),
        ({"prompt": "Hello", "messages": "Good day."}, {"response": "messages"}),
    ],
)
def test_of_prompt_and_messages_the_one_in_columns_counts(raw: dict[str, Any], columns: dict[str, str]) -> None:
    row = parse_conversation(raw, 0, columns)
    assert (row.prompt, row.response) == ((USER,), "Good day.")


@pytest.mark.parametrize(
    ("raw", "columns", "message"),
    [
        ([], {}, "a row: expected an object"),
        ({"q": "x"}, {"prompt": "question"}, "'question' is missing"),
        ({"response": "x"}, {}, "one of the columns 'prompt' or 'messages', this one has neither"),
        (
            {"prompt": "x", "messages": [USER], "response": "x"},
            {},
            "this one has both: name the right one in `columns`",
        ),
        ({"messages": [USER]}, {}, "needs a response"),
        ({"messages": [ASSISTANT], "response": "x"}, {}, "must be the user's"),
        ({"messages": [ASSISTANT]}, {}, "must be the user's"),
        ({"prompt": "x", "response": " "}, {}, "the response is empty"),
        ({"prompt": "x", "response": "y", "trivial": "no"}, {}, "true or false"),
    ],
)
def test_what_is_no_conversation_is_refused(raw: Any, columns: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_conversation(raw, 0, columns)


def test_parquet_gives_the_columns_of_a_conversation_and_no_others(tmp_path: Any) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({"prompt": ["Hello"], "response": ["Good day."], "vector": [[0.0] * 8]})
    parquet.write_table(table, tmp_path / "rows.parquet")
    source = SourceConfig(name="chat", kind="parquet", path=str(tmp_path / "rows.parquet"))
    assert open_rows(source, fields=CONVERSATION_FIELDS).raw(0) == {"prompt": "Hello", "response": "Good day."}


def test_parquet_gives_no_messages_where_the_prompt_is_named(tmp_path: Any) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist([{"problem": "1+1?", **ULTRACHAT}]), tmp_path / "rows.parquet")
    source = SourceConfig(
        name="maths", kind="parquet", path=str(tmp_path / "rows.parquet"), columns={"prompt": "problem"}
    )
    assert open_rows(source).raw(0) == {"problem": "1+1?"}
