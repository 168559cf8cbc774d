"""From a row to the tokens that a rollout worker feeds its engine."""

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
    """Frames and tokenises prompts as `data` says."""

    def __init__(self, data: DataConfig, tokenizer: Tokenizer) -> None:
        """Raises ConfigError where the template does not go with the tokenizer or the system prompt."""
        self._data = data
        self._tokenizer = tokenizer
        try:
            self._render(({"role": "user", "content": "?"},))
        except DataError as e:
            raise ConfigError(f"data.template = {data.template} cannot be used here: {e}") from e

    def frame(self, row: Row) -> FramedRow | None:
        """The row with its prompt; None where that is longer than `max_prompt_tokens`.

        Where the prompt has opened the thinking already, `meta["opening"]` tells the rewards what the completion lacks.
        """
        text = self._render(row.messages)
        token_ids = np.asarray(self._encode(text), dtype=np.int32)
        if len(token_ids) > self._data.max_prompt_tokens:
            return None
        if opening := opening_of(text):
            row = replace(row, meta={**row.meta, "opening": opening})
        return FramedRow(row=row, token_ids=token_ids)

    def fits(self, row: Row) -> bool:
        """Whether `frame` would take the row. Tokenises only prompts that have more bytes than they may have tokens."""
        text = self._render(row.messages)
        # A token stands for at least a byte, apart from a few that a tokenizer puts around the text.
        return len(text.encode()) + 8 <= self._data.max_prompt_tokens or (
            len(self._encode(text)) <= self._data.max_prompt_tokens
        )

    def _render(self, messages: Sequence[Message]) -> str:
        return render(
            self._data.template, messages, self._tokenizer, self._data.system_prompt, self._data.template_args
        )

    def _encode(self, text: str) -> list[int]:
        # A chat template has already written the special tokens; other text gets what the tokenizer begins a text with.
        return self._tokenizer.encode(text, add_special_tokens=self._data.template not in CHAT_TEMPLATES)
