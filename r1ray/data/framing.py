"""Turn a row into the token ids of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from r1ray.config.schema import DataConfig
from r1ray.data.rows import Row
from r1ray.data.templates import CHAT_TEMPLATES, opening_of, render
from r1ray.data.tokenizer import Tokenizer
from r1ray.errors import ConfigError, DataError
from r1ray.types import Int32Array, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class FramedRow:
    """A row and its prompt. Producers: `FileRows`, `SyntheticRows`. Consumer: `PromptSource`."""

    row: Row
    token_ids: Int32Array  # [P]


class Framer:
    """Renders and tokenises prompts with the template of `data`."""

    def __init__(self, data: DataConfig, tokenizer: Tokenizer) -> None:
        """Raises ConfigError if the template does not fit the tokenizer or the system prompt."""
        self._data = data
        self._tokenizer = tokenizer
        try:
            self._render(({"role": "user", "content": "?"},))
        except DataError as e:
            raise ConfigError(f"data.template = {data.template} cannot be used here: {e}") from e

    def frame(self, row: Row) -> FramedRow | None:
        """The row with its prompt, or None if the prompt is longer than `max_prompt_tokens`.

        If the prompt ends with `<think>`, `meta["opening"]` holds that end for the rewards, because
        the completion lacks it.
        """
        text = self._render(row.messages)
        token_ids = np.asarray(self._encode(text), dtype=np.int32)
        if len(token_ids) > self._data.max_prompt_tokens:
            return None
        if opening := opening_of(text):
            row = replace(row, meta={**row.meta, "opening": opening})
        return FramedRow(row=row, token_ids=token_ids)

    def fits(self, row: Row) -> bool:
        """Whether `frame` accepts the row. Tokenises only prompts with more bytes than permitted tokens."""
        text = self._render(row.messages)
        # A token covers at least one byte, apart from a few that a tokenizer adds around the text.
        return len(text.encode()) + 8 <= self._data.max_prompt_tokens or (
            len(self._encode(text)) <= self._data.max_prompt_tokens
        )

    def _render(self, messages: Sequence[Message]) -> str:
        return render(
            self._data.template, messages, self._tokenizer, self._data.system_prompt, self._data.template_args
        )

    def _encode(self, text: str) -> list[int]:
        # A chat template writes the special tokens itself; for other text the tokenizer adds them.
        return self._tokenizer.encode(text, add_special_tokens=self._data.template not in CHAT_TEMPLATES)
