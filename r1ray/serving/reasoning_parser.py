"""Reasoning parser for vLLM: `--reasoning-parser-plugin r1ray.serving.reasoning_parser --reasoning-parser r1ray`.

It parses text instead of tokens, because `<think>` is not a token of most base models, and vLLM's `deepseek_r1` refuses
such models. It accepts both `<think>..</think> summary` and `<think>..</think> <answer>..</answer>`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from vllm.entrypoints.generate.base.protocol import DeltaMessage
from vllm.reasoning import ReasoningParser, ReasoningParserManager

from r1ray.util.responses import ThinkingAndAnswer

_TAIL = 12
"""Earlier tokens in which a closing tag may begin: `</think>` has eight characters."""


@ReasoningParserManager.register_module("r1ray")
class R1RayReasoningParser(ReasoningParser):  # type: ignore[misc]
    """Separates thinking and answer, of a complete response or of a stream. One object per response."""

    engine_based_streaming = True  # makes vLLM call `finish_streaming` at the end and stream the answer through here

    opened: ClassVar[bool] = False  # whether the prompt ends inside the thinking

    def __init__(self, tokenizer: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(tokenizer, *args, **kwargs)
        self._stream = ThinkingAndAnswer(thinking=self.opened)

    @property
    def reasoning_start_str(self) -> str:
        """Tag that begins the thinking."""
        return "<think>"

    @property
    def reasoning_end_str(self) -> str:
        """Tag that ends the thinking."""
        return "</think>"

    def is_reasoning_end(self, input_ids: Sequence[int]) -> bool:
        """Always False. vLLM calls it with the prompt, and R1-Zero's prompt contains both tags without any thinking."""
        return False

    def is_reasoning_end_streaming(self, input_ids: Sequence[int], delta_ids: Iterable[int]) -> bool:
        """Whether the thinking has ended, after which vLLM applies a requested grammar."""
        tail = list(input_ids)[-(len(list(delta_ids)) + _TAIL) :]
        return "</think>" in self.model_tokenizer.decode(tail)

    def count_reasoning_tokens(self, token_ids: Sequence[int]) -> int:
        """Number of tokens in the thinking, without the tags if these are single tokens."""
        begun = 0 if self.opened else self._first(token_ids, "<think>")
        return max(0, self._first(token_ids, "</think>") - 1 - begun)

    def _first(self, token_ids: Sequence[int], tag: str) -> int:
        """Length of the shortest prefix that contains `tag`; one more than all tokens if none does."""
        low, high = 0, len(token_ids) + 1
        while low + 1 < high:
            middle = (low + high) // 2
            if tag in self.model_tokenizer.decode(list(token_ids[:middle])):
                high = middle
            else:
                low = middle
        return high

    def extract_content_ids(self, input_ids: list[int]) -> list[int]:
        """Empty: only tool parsers need the tokens after the thinking, and r1ray's server has none."""
        return []

    def extract_reasoning_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
    ) -> DeltaMessage | None:
        """The thinking or answer that `delta_text` adds."""
        return _message(*self._stream.feed(delta_text))

    def finish_streaming(self) -> DeltaMessage | None:
        """The text that was held back because it could have begun a tag."""
        return _message(*self._stream.end())

    def extract_reasoning(self, model_output: str, request: Any) -> tuple[str | None, str | None]:
        """Thinking and answer of a complete response; None for an empty one."""
        apart = ThinkingAndAnswer(thinking=self.opened)
        fed, rest = apart.feed(model_output), apart.end()
        return fed[0] + rest[0] or None, fed[1] + rest[1] or None


@ReasoningParserManager.register_module("r1ray_opened")
class OpenedParser(R1RayReasoningParser):
    """Parser for templates that open the thinking in the prompt."""

    opened = True


def _message(thinking: str, answer: str) -> DeltaMessage | None:
    if not thinking and not answer:
        return None
    return DeltaMessage(reasoning=thinking or None, content=answer or None)
