"""Templates of `data.template` as Jinja, for tools that accept only chats: vLLM's server, transformers.

A model answers as in training only if its prompt has the same form as in training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from r1ray.data.templates import R1_ZERO_FRAME, THINK_OPENING, opening_of, render
from r1ray.data.tokenizer import Tokenizer
from r1ray.errors import ConfigError

_TITLES = "{% if m.role == 'user' %}User: {% elif m.role == 'assistant' %}Assistant: {% endif %}"

_PLAIN = (
    "{% for m in messages %}" + _TITLES + "{{ m.content + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

_R1_ZERO = (
    "{% macro turn(m) %}" + _TITLES + "{{ m.content }}"
    "{% if not m.content.rstrip().endswith(('.', '?', '!')) %}{{ '.' }}{% endif %}{% endmacro %}"
    "{% if messages[0].role != 'system' %}{{ FRAME + ' ' }}{% endif %}"
    "{% for m in messages %}{{ turn(m) }}{% if not loop.last %}{{ ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' Assistant:' }}{% endif %}"
)


def chat_template(template: str, tokenizer: Tokenizer, args: Mapping[str, Any] | None = None) -> str:
    """Return the Jinja template that frames chats as `data.template` = `template` does, up to the start of the answer.

    It contains what the tokenizer puts before every text, such as a token for the beginning, if
    `template` leaves that to the tokenizer. `args`, the training's `data.template_args`, become
    defaults that a request may override.

    Raises ConfigError for a template without a chat form, and for one that the tokenizer lacks.
    """
    if template == "plain":
        return _opening(tokenizer) + _PLAIN
    if template == "r1_zero":
        return _opening(tokenizer) + _R1_ZERO.replace("FRAME", json.dumps(R1_ZERO_FRAME))
    if template not in ("tokenizer", "r1"):
        raise ConfigError(f"data.template = {template} has no chat form: choose tokenizer, r1, r1_zero or plain")
    probe = render("tokenizer", "?", tokenizer, args=args)  # raises ConfigError if there is none
    own = tokenizer.chat_template
    text = _defaults(args or {}) + str(own["default"] if isinstance(own, dict) else own)
    if template == "tokenizer" or probe.endswith(THINK_OPENING):
        return text
    ending = "\n" if probe.endswith("<think>") else THINK_OPENING
    return text.removesuffix("\n") + "{% if add_generation_prompt %}{{ " + json.dumps(ending) + " }}{% endif %}"


def _defaults(args: Mapping[str, Any]) -> str:
    """Return Jinja that gives each argument its value unless the request does."""
    return "".join(
        "{% if " + name + " is not defined %}{% set " + name + " = " + _literal(value) + " %}{% endif %}"
        for name, value in args.items()
    )


def _literal(value: Any) -> str:
    return "none" if value is None else json.dumps(value)


def opens_thinking(template: str, tokenizer: Tokenizer, args: Mapping[str, Any] | None = None) -> bool:
    """Whether a prompt in this template ends inside the thinking."""
    return bool(opening_of(render(template, "?", tokenizer, args=args)))


def _opening(tokenizer: Tokenizer) -> str:
    ids = tokenizer.encode("", add_special_tokens=True)
    text = tokenizer.decode(ids)
    return "{{ " + json.dumps(text) + " }}" if text else ""
