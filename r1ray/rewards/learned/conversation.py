"""What reward models and judges see of a sample. Training and scoring share it: a model must see
what it was trained on.
"""

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
"""summary: what follows the last `</think>`, for helpfulness. response: all of it, thinking
included, for harmlessness.
"""

QUESTION_AND_RESPONSE = """<question>
{question}
</question>

<response>
{response}
</response>"""
"""How prompts of judges and refiners enclose the two texts."""

_ENCODING = threading.Lock()
"""Fast tokenizers keep `split_special_tokens` as state that all threads share."""


def judged_part(response: str, part: Part, *, opened: bool = False) -> str:
    """The part of a response to judge; a response that never ends its thinking has an empty summary."""
    return response if part == "response" else answer_part(response, opened=opened).strip()


def question(messages: Sequence[Message]) -> str:
    """The conversation before the response as text. Raises DataError if there is none."""
    if not messages:
        raise DataError("the conversation is unknown: give `messages` or `prompt` with the response")
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)


def conversation_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> str:
    """The conversation before the response as text, by the chat template if there is one. Raises
    DataError for a conversation without messages.
    """
    if not messages:
        raise DataError("the conversation is unknown: give `messages` or `prompt` with the response")
    if tokenizer.chat_template is None:
        return "".join(f"{m['role'].capitalize()}: {m['content']}\n" for m in messages) + "Assistant: "
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def conversation_ids(tokenizer: Tokenizer, messages: Sequence[Message], response: str, max_length: int) -> list[int]:
    """Token ids of the conversation followed by the response.

    The response does not pass through the chat template, because many templates remove the
    thinking. Text in it that looks like a special token is encoded as plain text, so that it cannot
    end its turn and begin another. Raises DataError for a conversation without messages or of more
    than `max_length` tokens.
    """
    prompt = conversation_prompt(tokenizer, messages)
    with _ENCODING:
        ids = list(tokenizer.encode(prompt, add_special_tokens=tokenizer.chat_template is None))
        ids += tokenizer.encode(response, add_special_tokens=False, split_special_tokens=True)
    if len(ids) > max_length:
        raise DataError(
            f"the conversation has {len(ids):,} tokens, the reward model takes at most {max_length:,} (max_length)"
        )
    return ids
