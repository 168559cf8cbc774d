"""Reasoning parser for vLLM: `--reasoning-parser-plugin r1ray.serving.reasoning_parser --reasoning-parser r1ray`.

It reads text and not tokens, because in the vocabulary of most base models `<think>` is no token of its own, and vLLM's
`deepseek_r1` refuses such models. It takes `<think>..</think> summary` and `<think>..</think> <answer>..</answer>` alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from vllm.entrypoints.generate.base.protocol import DeltaMessage
from vllm.reasoning import ReasoningParser, ReasoningParserManager

from r1ray.util.responses import Apart

_TAIL = 12
"""Tokens of the past that a closing tag may begin in: `</think>` has eight characters."""


@ReasoningParserManager.register_module("r1ray")
class R1RayReasoningParser(ReasoningParser):  # type: ignore[misc]
    """Thinking apart from the answer, of a whole response and of a stream. One object serves one response."""

    engine_based_streaming = True  # vLLM's word for: asks `finish_streaming` at the end, and sees the answer here too

    opened: ClassVar[bool] = False  # whether the prompt ends inside the thinking

    def __init__(self, tokenizer: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(tokenizer, *args, **kwargs)
        self._stream = Apart(thinking=self.opened)

    @property
    def reasoning_start_str(self) -> str:
        return "<think>"

    @property
    def reasoning_end_str(self) -> str:
        return "</think>"

    def is_reasoning_end(self, input_ids: Sequence[int]) -> bool:
        """Never of a prompt, which is what vLLM asks: the frame of R1-Zero names both tags and ends no thinking."""
        return False

    def is_reasoning_end_streaming(self, input_ids: Sequence[int], delta_ids: Iterable[int]) -> bool:
        """From here on a grammar holds, where a client asks for one."""
        tail = list(input_ids)[-(len(list(delta_ids)) + _TAIL) :]
        return "</think>" in self.model_tokenizer.decode(tail)

    def count_reasoning_tokens(self, token_ids: Sequence[int]) -> int:
        """Tokens inside the thinking, without the tags where these are tokens of their own."""
        begun = 0 if self.opened else self._first(token_ids, "<think>")
        return max(0, self._first(token_ids, "</think>") - 1 - begun)

    def _first(self, token_ids: Sequence[int], tag: str) -> int:
        """How many tokens have `tag` among them; all and one more where they do not."""
        low, high = 0, len(token_ids) + 1
        while low + 1 < high:
            middle = (low + high) // 2
            if tag in self.model_tokenizer.decode(list(token_ids[:middle])):
                high = middle
            else:
                low = middle
        return high

    def extract_content_ids(self, input_ids: list[int]) -> list[int]:
        """The tokens after the thinking; only tool parsers ask, and r1ray's server has none."""
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
        return _message(*self._stream.feed(delta_text))

    def finish_streaming(self) -> DeltaMessage | None:
        """What was held back as the beginning of a tag, and was none."""
        return _message(*self._stream.end())

    def extract_reasoning(self, model_output: str, request: Any) -> tuple[str | None, str | None]:
        apart = Apart(thinking=self.opened)
        fed, rest = apart.feed(model_output), apart.end()
        return fed[0] + rest[0] or None, fed[1] + rest[1] or None


@ReasoningParserManager.register_module("r1ray_opened")
class OpenedParser(R1RayReasoningParser):
    """For templates that open the thinking themselves."""

    opened = True


def _message(thinking: str, answer: str) -> DeltaMessage | None:
    if not thinking and not answer:
        return None
    return DeltaMessage(reasoning=thinking or None, content=answer or None)
