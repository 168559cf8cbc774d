"""Conversations that end with the assistant's answer: rows for supervised training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from r1ray.data.rows import chat_of, text_of
from r1ray.errors import DataError
from r1ray.types import Message

CONVERSATION_FIELDS = ("prompt", "response", "messages", "id", "domain", "trivial")
"""What r1ray looks for in a row, under these names unless `columns` gives others."""


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

    `number` names the row where it has no id. Raises DataError for what is wrong with it.
    """
    if not isinstance(raw, Mapping):
        raise DataError(f"a row must be an object with named columns, this is a {type(raw).__name__}")
    if missing := [column for column in columns.values() if column not in raw]:
        raise DataError(f"the column {missing[0]!r} is missing; the row has {sorted(map(str, raw))!r:.200}")
    values = {name: raw.get(columns.get(name, name)) for name in CONVERSATION_FIELDS}
    if (values["prompt"] is None) == (values["messages"] is None):
        raise DataError("a row needs one of prompt and messages")
    if values["prompt"] is not None:
        chat: tuple[Message, ...] = ({"role": "user", "content": text_of(values["prompt"], "the prompt")},)
    else:
        chat = chat_of(values["messages"])
    if values["response"] is None:
        if chat[-1]["role"] != "assistant":
            raise DataError("a row needs a response, or messages that end with the assistant's")
        chat, response = chat[:-1], chat[-1]["content"]
    else:
        response = text_of(values["response"], "the response")
    if not chat or chat[-1]["role"] != "user":
        raise DataError("the message before the response must be the user's")
    if values["trivial"] not in (None, True, False):
        raise DataError(f"trivial must be true or false, it is {values['trivial']!r:.40}")
    return Conversation(
        row_id=str(number if values["id"] is None else values["id"]),
        prompt=chat,
        response=response,
        domain=None if values["domain"] is None else str(values["domain"]),
        trivial=bool(values["trivial"]),
    )
