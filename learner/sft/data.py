"""Conversations as training examples.

    row --template--> prompt text --tokenizer--> prompt [P]
        `--response + end of text-------------> completion [C], the only part that is learned

The prompt is framed exactly as in reinforcement learning and evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from learner.examples import RowFormat, SupervisedData, read_sources
from r1ray.config.schema import Config
from r1ray.data.conversations import CONVERSATION_FIELDS, Conversation, parse_conversation
from r1ray.data.templates import CHAT_TEMPLATES, opening_of, render
from r1ray.data.tokenizer import Tokenizer
from r1ray.errors import ConfigError, DataError
from r1ray.types import Int32Array, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One tokenized conversation. Producer: `Framing`. Consumer: `SftRank`."""

    prompt: Int32Array  # [P >= 1]
    completion: Int32Array  # [C >= 1] the response and the token that ends it

    @property
    def tokens(self) -> int:
        """Tokens of prompt and completion together."""
        return len(self.prompt) + len(self.completion)


class Framing(RowFormat[Conversation, Example]):
    """Conversations, framed by `data.template`."""

    noun = "conversation"
    fields = CONVERSATION_FIELDS

    def __init__(self, config: Config, tokenizer: Tokenizer) -> None:
        """Raises ConfigError if the template does not fit the tokenizer, or the tokenizer has no end-of-text token."""
        if tokenizer.eos_token_id is None:
            raise ConfigError(f"the tokenizer of model.path = {config.model.path} has no end-of-text token to learn")
        self._eos = tokenizer.eos_token_id
        self._tokenizer = tokenizer
        self._data = config.data
        self._longest = config.model.max_length
        self.example(Conversation(row_id="", prompt=({"role": "user", "content": "?"},), response="</think>!"))

    def parse(self, raw: Any, number: int, columns: Mapping[str, str]) -> Conversation:
        """See RowFormat."""
        return parse_conversation(raw, number, columns)

    def example(self, row: Conversation) -> Example:
        """Raises DataError for a conversation that the template refuses, and for thinking that is never closed."""
        text, response = self._texts(row)
        prompt = self._tokenizer.encode(text, add_special_tokens=self._data.template not in CHAT_TEMPLATES)
        if not prompt:
            raise DataError("the prompt has no token, so nothing predicts the response's first")
        completion = [*self._tokenizer.encode(response, add_special_tokens=False), self._eos]
        return Example(prompt=np.asarray(prompt, dtype=np.int32), completion=np.asarray(completion, dtype=np.int32))

    def fits(self, row: Conversation) -> bool:
        """See RowFormat. Tokenizes only a conversation that has more bytes than `model.max_length`."""
        text, response = self._texts(row)
        # Each token is at least one byte, apart from a few that a tokenizer adds around the text.
        return len(text.encode()) + len(response.encode()) + 8 <= self._longest or (
            self.example(row).tokens <= self._longest
        )

    def prompt(self, row: Conversation) -> Sequence[Message]:
        """See RowFormat."""
        return row.prompt

    def content(self, row: Conversation) -> list[Any]:
        """See RowFormat."""
        return [row.response]

    def _texts(self, row: Conversation) -> tuple[str, str]:
        data = self._data
        text = render(data.template, row.prompt, self._tokenizer, data.system_prompt, data.template_args)
        response = row.response
        if not (opening := opening_of(text)):
            return text, response
        if "</think>" not in response:  # the model would learn to give its answer as thinking
            raise DataError(
                f"the prompt opens <think> (data.template = {self._data.template}) and the response has no </think>: "
                "let an "
                "answer without thinking begin with <think></think> (curation.empty_thinking), or choose another "
                "template"
            )
        if response.lstrip().startswith("<think>"):
            response = response.lstrip()
            for character in opening:  # what the prompt already contains: the tag, and perhaps the end of its line
                response = response.removeprefix(character)
        return text, response


def read_data(config: Config, tokenizer: Tokenizer) -> SupervisedData[Example]:
    """Read the conversations of a run. Raises ConfigError as `read_sources` and `Framing` do."""
    return read_sources(config, "sft", Framing(config, tokenizer))
