"""What reward models and judges are shown of a sample. Training and serving share it: a model must see what it was taught on."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from r1ray.errors import DataError
from r1ray.rewards.answers.answer import answer_part
from r1ray.types import Message

if TYPE_CHECKING:
    from r1ray.data.tokenizer import Tokenizer

Part = Literal["summary", "response"]
"""summary: what follows the last `</think>`, for helpfulness. response: all of it, thinking included, for harmlessness."""

_ENCODING = threading.Lock()
"""Fast tokenizers keep `split_special_tokens` as state, which many threads would set for each other."""


def judged_part(response: str, part: Part, *, opened: bool = False) -> str:
    """The part of a response that is judged; a response that never ends its thinking has an empty summary."""
    return response if part == "response" else answer_part(response, opened=opened).strip()


def question(messages: Sequence[Message]) -> str:
    """The conversation before the response as text. Raises DataError where there is none."""
    if not messages:
        raise DataError("the conversation is unknown: give `messages` or `prompt` with the response")
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)


def conversation_ids(tokenizer: Tokenizer, messages: Sequence[Message], response: str, max_length: int) -> list[int]:
    """Token ids of the conversation with the response behind it.

    The response is not put through the chat template, because many templates cut the thinking out of what they are given. What
    it spells like a special token is plain text, so that it cannot end its turn and begin another.
    Raises DataError for a conversation without messages or of more than `max_length` tokens.
    """
    if not messages:
        raise DataError("the conversation is unknown: give `messages` or `prompt` with the response")
    if tokenizer.chat_template is None:
        prompt = "".join(f"{m['role'].capitalize()}: {m['content']}\n" for m in messages) + "Assistant: "
    else:
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    with _ENCODING:
        ids = list(tokenizer.encode(prompt, add_special_tokens=tokenizer.chat_template is None))
        ids += tokenizer.encode(response, add_special_tokens=False, split_special_tokens=True)
    if len(ids) > max_length:
        raise DataError(f"the conversation has {len(ids):,} tokens, the reward model takes {max_length:,}: max_length")
    return ids
