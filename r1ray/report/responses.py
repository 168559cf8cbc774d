"""What the model wrote, taken apart: thinking and answer, and how often it stops to reconsider."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

REFLECTIVE_WORDS = ("wait", "let me check", "however", "hmm", "actually", "alternatively", "on second thought")
"""Words that the R1 paper and its reproductions count as signs of self-correction."""

_THINK = re.compile(r"\A\s*(?:<think>)?(?P<thinking>.*?)</think>(?P<rest>.*)\Z", re.DOTALL)
_OPEN_THINK = re.compile(r"\A\s*<think>(?P<thinking>.*)\Z", re.DOTALL)
_ANSWER = re.compile(r"<answer>(?P<answer>.*?)</answer>", re.DOTALL)
_SPECIAL = re.compile(r"<\|[^<>|]{1,40}\|>\s*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A response for reading. `answer` is the tagged answer, or all that follows the thinking where there is no tag."""

    thinking: str  # "" where there is none
    answer: str  # "" where the response ends inside the thinking
    tagged: bool  # the answer stood in its tags


def split_response(text: str) -> Response:
    """Set thinking and answer apart. Thinking that never ends is all thinking; its opening tag may be in the prompt."""
    text = _SPECIAL.sub("", text)
    if match := _THINK.match(text):
        thinking, rest = match["thinking"], match["rest"]
    elif match := _OPEN_THINK.match(text):
        thinking, rest = match["thinking"], ""
    else:
        thinking, rest = "", text
    answer = _ANSWER.search(rest)
    return Response(
        thinking=thinking.strip(), answer=(answer["answer"] if answer else rest).strip(), tagged=answer is not None
    )


class ReflectiveWords:
    """Counts whole words and phrases, whatever their case."""

    def __init__(self, words: Sequence[str] = REFLECTIVE_WORDS) -> None:
        self.words = tuple(words)
        body = "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in sorted(words, key=len, reverse=True))
        self._pattern = re.compile(rf"(?<!\w)(?:{body})(?!\w)", re.IGNORECASE)

    def count(self, text: str) -> int:
        return len(self._pattern.findall(text)) if self.words else 0
