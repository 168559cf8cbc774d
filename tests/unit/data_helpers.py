"""What the tests of r1ray.data share."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from r1ray.types import Message

GSM8K = Path(os.environ.get("R1RAY_GSM8K", Path(__file__).parents[3] / "shared/data/gsm8k"))
needs_gsm8k = pytest.mark.skipif(not GSM8K.is_dir(), reason=f"no GSM8K at {GSM8K}; set R1RAY_GSM8K")


OPENINGS = {"thinking": "<think>\n", "tag": "<think>", "spaced": "<think>\n\n"}
"""Chat template -> what it puts at the end of a prompt."""


class ByteTokenizer:
    """One token a byte; token 256 begins a text, token 257 ends one."""

    eos_token_id: int | None = 257

    def __init__(self, chat_template: str | None = "bytes") -> None:
        self.chat_template: Any = chat_template

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [*([256] if add_special_tokens else []), *text.encode()]

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        return bytes(t for t in token_ids if t < 256).decode()

    def apply_chat_template(
        self, conversation: Sequence[Message], *, tokenize: bool, add_generation_prompt: bool, **args: Any
    ) -> str:
        assert not tokenize
        assert add_generation_prompt
        self.template_args = args
        turns = "".join(f"<{m['role']}>{m['content']}" for m in conversation)
        return f"{turns}<assistant>{OPENINGS.get(self.chat_template, '')}"


def write_jsonl(path: Path, rows: Iterable[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
