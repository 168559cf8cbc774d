"""Conversations that end with the assistant's answer: rows for supervised training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from r1ray.data.rows import question_of, read_columns, text_of
from r1ray.errors import DataError
from r1ray.types import Message

CONVERSATION_FIELDS = ("prompt", "response", "messages", "id", "domain", "trivial")
"""Fields that r1ray reads from a row, under these names unless `columns` maps them to others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One row. Producer: `parse_conversation`."""

    row_id: str  # of the `id` column, else the row's number from 0
    prompt: tuple[Message, ...]  # ends with the user's message
    response: str  # the assistant's last message
    domain: str | None = None
    trivial: bool = False  # the row says that its prompt needs no chain of thought


def parse_conversation(raw: Any, number: int, columns: Mapping[str, str]) -> Conversation:
    """The conversation of a row: `messages` that end with the assistant's, or `prompt` (or `messages`) and `response`.

    `number` names a row without an id. Raises DataError for a malformed row.
    """
    values = read_columns(raw, CONVERSATION_FIELDS, columns)
    chat = question_of(values, columns)
    if values["response"] is None:
        if chat[-1]["role"] != "assistant":
            raise DataError("a row needs a response, or messages that end with the assistant's")
        chat, response = chat[:-1], chat[-1]["content"]
    else:
        response = text_of(values["response"], "the response")
    if not chat or chat[-1]["role"] != "user":
        raise DataError("the message before the response must be the user's")
    if values["trivial"] not in (None, True, False):
        raise DataError(f"trivial: expected true or false, got {values['trivial']!r:.40}")
    return Conversation(
        row_id=str(number if values["id"] is None else values["id"]),
        prompt=chat,
        response=response,
        domain=None if values["domain"] is None else str(values["domain"]),
        trivial=bool(values["trivial"]),
    )
