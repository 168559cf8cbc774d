"""Prompt templates: from a chat to the text that the model continues."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from r1ray.data.tokenizer import Tokenizer
from r1ray.errors import ConfigError, DataError
from r1ray.types import Message

R1_ZERO_FRAME = (
    "Below, a User talks with an Assistant. The User puts a question and the Assistant answers it. The Assistant first "
    "works through the reasoning in its mind and only then tells the User the answer. It writes the reasoning between "
    "<think> and </think> and the answer between <answer> and </answer>, like this: "
    "<think> the reasoning </think> <answer> the answer </answer>."
)
"""Our wording of DeepSeek-R1-Zero's template (arXiv 2501.12948v1, table 1)."""

THINK_OPENING = "<think>\n"
"""Start of every response under the template `r1`, as DeepSeek-R1's model card advises. It ends the prompt."""


def opening_of(text: str) -> str:
    """`<think>` and the white space after it, if the prompt ends with them; else the empty string."""
    return text[text.rindex("<think>") :] if text.rstrip().endswith("<think>") else ""


def _plain(messages: Sequence[Message], tokenizer: Tokenizer, args: Mapping[str, Any]) -> str:
    titles = {"system": "", "user": "User: ", "assistant": "Assistant: "}
    return "".join(f"{titles[m['role']]}{m['content']}\n" for m in messages) + "Assistant:"


def _r1_zero(messages: Sequence[Message], tokenizer: Tokenizer, args: Mapping[str, Any]) -> str:
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": R1_ZERO_FRAME}, *messages]
    titles = {"system": "", "user": "User: ", "assistant": "Assistant: "}
    return " ".join([*(titles[m["role"]] + _sentence(m["content"]) for m in messages), "Assistant:"])


def _sentence(text: str) -> str:
    """The text, with a full stop if it has no end mark, because all turns share one line."""
    return text if text.rstrip().endswith((".", "?", "!")) else text + "."


def _tokenizer(messages: Sequence[Message], tokenizer: Tokenizer, args: Mapping[str, Any]) -> str:
    if tokenizer.chat_template is None:
        raise ConfigError("the model's tokenizer has no chat template: set data.template to r1_zero or plain")
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **args)
    except TemplateError as e:
        roles = ", ".join(m["role"] for m in messages)
        raise DataError(f"the tokenizer's chat template refuses a chat of {roles}: {e}") from e


def _r1(messages: Sequence[Message], tokenizer: Tokenizer, args: Mapping[str, Any]) -> str:
    text = _tokenizer(messages, tokenizer, args)
    # Some chat templates open the thinking themselves.
    return text.removesuffix(opening_of(text)) + THINK_OPENING


def _none(messages: Sequence[Message], tokenizer: Tokenizer, args: Mapping[str, Any]) -> str:
    if len(messages) > 1:
        raise DataError(f"data.template = none: expected one message, got {len(messages)}; choose plain, or tokenizer")
    return messages[0]["content"]


TEMPLATES: dict[str, Callable[[Sequence[Message], Tokenizer, Mapping[str, Any]], str]] = {
    "r1_zero": _r1_zero,
    "r1": _r1,
    "tokenizer": _tokenizer,
    "plain": _plain,
    "none": _none,
}
"""The values of `data.template`."""

CHAT_TEMPLATES = frozenset({"r1", "tokenizer"})
"""Templates whose text already holds the model's special tokens, so that the tokenizer must not add them again."""


_RESERVED_ARGS = frozenset({"conversation", "tokenize", "add_generation_prompt", "messages", "chat_template"})


def as_messages(prompt: str | Sequence[Message], system_prompt: str | None = None) -> tuple[Message, ...]:
    """The chat form of a prompt. A chat with its own system message keeps it."""
    messages = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else tuple(prompt)
    if system_prompt is not None and messages[0]["role"] != "system":
        return ({"role": "system", "content": system_prompt}, *messages)
    return messages


def render(
    template: str,
    prompt: str | Sequence[Message],
    tokenizer: Tokenizer,
    system_prompt: str | None = None,
    args: Mapping[str, Any] | None = None,
) -> str:
    """The text that the model continues, up to the start of its answer.

    `prompt` is one user message, or a chat that ends with one. `system_prompt` comes first; in
    `r1_zero` it replaces the frame. `args`: arguments of the chat template (`data.template_args`).

    Raises ConfigError for an unknown template, for a chat template that the tokenizer lacks, and for
    `args` that the template cannot take.
    """
    if template not in TEMPLATES:
        raise ConfigError(f"data.template: expected one of {', '.join(TEMPLATES)}, got {template!r}")
    if args and (template not in CHAT_TEMPLATES or set(args) & _RESERVED_ARGS):
        raise ConfigError(
            f"data.template_args = {dict(args)}: only for data.template = {' or '.join(sorted(CHAT_TEMPLATES))} (it is "
            f"{template}), and without {', '.join(sorted(_RESERVED_ARGS))}"
        )
    return TEMPLATES[template](as_messages(prompt, system_prompt), tokenizer, args or {})
