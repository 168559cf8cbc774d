"""Parse one row of a data set: map the columns of a file to the fields of r1ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from r1ray.errors import DataError
from r1ray.types import Message

FIELDS = ("prompt", "messages", "answer", "id", "pass_rate", "target_language", "domain")
"""Fields that r1ray reads from a row, under these names unless `columns` maps them to others."""

ROLES = ("system", "user", "assistant")
_META_FIELDS = ("target_language", "domain")
_QUESTION = ("prompt", "messages")
_MISSING = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One problem of a source, not yet tokenised."""

    row_id: str  # of the `id` column, else the row's number from 0
    messages: tuple[Message, ...]  # ends with the user's message
    answer: Any  # msgpack types
    pass_rate: float | None = None  # share of earlier samples that were right, in [0, 1]
    meta: dict[str, Any] = field(default_factory=dict)


def parse_row(raw: Any, number: int, columns: Mapping[str, str]) -> Row:
    """The row with its columns mapped; `number` names a row without an id. Raises DataError for a malformed row."""
    values = read_columns(raw, FIELDS, columns)
    answer = values["answer"]
    if answer is None:
        raise DataError(f"the answer (column {columns.get('answer', 'answer')!r}) is missing or null")
    if (isinstance(answer, str) and not answer.strip()) or (isinstance(answer, float) and not math.isfinite(answer)):
        raise DataError(
            f"the answer (column {columns.get('answer', 'answer')!r}) is {answer!r:.40}: expected text or a number"
        )
    _check_packable(answer, "answer")
    meta = {name: v for name, v in values.items() if v is not None and (name not in FIELDS or name in _META_FIELDS)}
    _check_packable(meta, "meta")
    return Row(
        row_id=str(number if values["id"] is None else values["id"]),
        messages=_messages(values, columns),
        answer=answer,
        pass_rate=_pass_rate(values["pass_rate"]),
        meta=meta,
    )


def columns_of(fields: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Name -> column to read it from, for `fields` and all other names in `columns`, without those not read.

    Published data sets have `prompt` beside `messages`, or the chat under `prompt`. So `columns`
    takes precedence: if it names one of the two, the other is not read, and a column that it gives
    to one field is not read as the field of its own name.
    """
    given = {columns[name] for name in fields if name in columns}
    shut = {*_QUESTION} - {*_asked(columns)}
    own = {name: name for name in fields if name not in columns and name not in given | shut}
    return {**own, **columns}


def read_columns(raw: Any, fields: Sequence[str], columns: Mapping[str, str]) -> dict[str, Any]:
    """Name -> value in the row, or None if it has none; see `columns_of`.

    Raises DataError if `raw` is not an object, or lacks a column that `columns` names.
    """
    if not isinstance(raw, Mapping):
        raise DataError(f"a row: expected an object with named columns, got {type(raw).__name__}")
    for name, column in columns.items():
        if at_path(raw, column) is _MISSING:
            there = sorted(map(str, raw))
            raise DataError(f"the column {column!r} is missing (columns.{name}); the row has {there!r:.200}")
    read = columns_of(fields, columns)
    found = {name: at_path(raw, read[name]) if name in read else None for name in (*fields, *columns)}
    return {name: None if value is _MISSING else value for name, value in found.items()}


def at_path(raw: Mapping[str, Any], column: str) -> Any:
    """Return the value of a column, or of a path such as `reward_model.ground_truth` into nested objects.

    A column whose own name contains the dots wins. Returns `_MISSING` if there is no such value.
    """
    if column in raw:
        return raw[column]
    value: Any = raw
    for name in column.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return _MISSING
        value = value[name]
    return value


def question_of(values: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[Message, ...]:
    """The prompt of a row as a chat, or else its messages. Raises DataError if it has neither or both."""
    prompt, messages = (values[name] for name in _QUESTION)
    if (prompt is None) == (messages is None):
        asked = _asked(columns)
        if len(asked) == 1:
            raise DataError(f"the column {columns[asked[0]]!r} (columns.{asked[0]}) is null")
        names = " or ".join(repr(columns.get(name, name)) for name in asked)
        has = "neither" if prompt is None else "both: name the right one in `columns`"
        raise DataError(f"a row needs one of the columns {names}, this one has {has}")
    if prompt is not None:
        return ({"role": "user", "content": text_of(prompt, "the prompt")},)
    return chat_of(messages)


def _asked(columns: Mapping[str, str]) -> Sequence[str]:
    """Fields that may hold the question: those that `columns` names, else both."""
    return [name for name in _QUESTION if name in columns] or _QUESTION


def _messages(values: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[Message, ...]:
    chat = question_of(values, columns)
    if chat[-1]["role"] != "user":
        raise DataError(f"the last message: expected the user's, for the model to answer, got the {chat[-1]['role']}'s")
    return chat


def chat_of(messages: Any) -> tuple[Message, ...]:
    """The messages of a row. Raises DataError if they are not a chat."""
    if not isinstance(messages, list) or not messages:
        raise DataError("messages: expected a list of {role, content} with at least one entry")
    chat = []
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            raise DataError(f"message {i}: expected a role, one of {', '.join(ROLES)}")
        if message["role"] == "system" and i > 0:
            raise DataError(f"message {i} is a system message: only the first may be")
        chat.append(
            {"role": message["role"], "content": text_of(message.get("content"), f"the content of message {i}")}
        )
    return tuple(chat)


def text_of(value: Any, what: str) -> str:
    """The value, if it is text and not blank. Raises DataError otherwise."""
    if not isinstance(value, str):
        raise DataError(f"{what}: expected text, got {value!r:.60}")
    if not value.strip():
        raise DataError(f"{what} is empty")
    if not _is_unicode(value):
        raise DataError(f"{what} contains half of a surrogate pair, which is not a Unicode character")
    return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _pass_rate(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise DataError(f"the pass rate: expected a number from 0 to 1, got {value!r:.60}")
    return float(value)


def _check_packable(value: Any, what: str, depth: int = 0) -> None:
    """Raises DataError for a value that msgpack cannot encode, or that is nested deeper than 32 levels."""
    if depth > 32:
        raise DataError(f"the {what} is nested deeper than 32 levels")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise DataError(f"the {what} has the key {key!r:.60}: expected text as keys")
            _check_packable(item, what, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_packable(item, what, depth + 1)
    elif isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 64:
            raise DataError(f"the {what} contains an integer beyond 64 bits: write it as text")
    elif isinstance(value, str):
        if not _is_unicode(value):
            raise DataError(f"the {what} contains half of a surrogate pair, which is not a Unicode character")
    elif not isinstance(value, float | bytes | None):
        raise DataError(f"the {what} contains a {type(value).__name__}: expected text, numbers, lists and objects")
