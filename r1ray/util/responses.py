"""Splits a model's response into thinking, answer, and other text.

pieces("<think>7+5=12</think><answer>12</answer>") == [("thinking", "7+5=12"), ("answer", "12")]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Kind = Literal["thinking", "answer", "plain"]
Piece = tuple[Kind, str]

REFLECTIVE_WORDS = (
    *("wait", "let me check", "however", "hmm", "actually", "alternatively", "on second thought"),
    *("等等", "等一下", "不对", "让我检查", "再想想"),
)
"""Words that the R1 paper and its reproductions count as signs of self-correction, and Chinese equivalents."""

_NEXT: dict[Kind, dict[str, Kind]] = {
    "plain": {"<think>": "thinking", "<answer>": "answer"},
    "thinking": {"</think>": "plain"},  # an answer tag inside the thinking is part of the thinking
    "answer": {"</answer>": "plain"},
}


class Splitter:
    """Splits a streamed text. A tag may be cut anywhere.

    Worked example: fed `"<thi"`, `"nk>a</think>b"` it gives `[]`, then `[("thinking", "a"), ("plain", "b")]`.
    """

    def __init__(self, *, thinking: bool = False) -> None:
        """`thinking`: whether the prompt ends inside the thinking."""
        self._kind: Kind = "thinking" if thinking else "plain"
        self._held = ""

    def feed(self, text: str) -> list[Piece]:
        """The pieces that are complete after `text`; the possible beginning of a tag is held back."""
        self._held += text
        out: list[Piece] = []
        while found := self._first_tag():
            at, tag = found
            out.append((self._kind, self._held[:at]))
            self._kind = _NEXT[self._kind][tag]
            self._held = self._held[at + len(tag) :]
        sure = len(self._held) - self._tag_begun()
        out.append((self._kind, self._held[:sure]))
        self._held = self._held[sure:]
        return [piece for piece in out if piece[1]]

    def end(self) -> list[Piece]:
        """The text that was held back, which is not a tag."""
        held, self._held = self._held, ""
        return [(self._kind, held)] if held else []

    def _first_tag(self) -> tuple[int, str] | None:
        return min(((at, tag) for tag in _NEXT[self._kind] if (at := self._held.find(tag)) >= 0), default=None)

    def _tag_begun(self) -> int:
        """How many of the last held characters may begin a tag."""
        tags = _NEXT[self._kind]
        longest = min(len(self._held), max(map(len, tags)) - 1)
        return next((n for n in range(longest, 0, -1) if any(tag.startswith(self._held[-n:]) for tag in tags)), 0)


def pieces(text: str) -> list[Piece]:
    """The pieces of a complete response, each without surrounding white space.

    If the response closes the thinking without opening it, the prompt has opened it.
    """
    closed = text.find("</think>")
    splitter = Splitter(thinking=closed >= 0 and "<think>" not in text[:closed])
    stripped = [(kind, part.strip()) for kind, part in splitter.feed(text) + splitter.end()]
    return [(kind, part) for kind, part in stripped if part]


class ThinkingAndAnswer:
    """Splits a streamed text into two growing texts, thinking and answer, without tags and surrounding white space.

    Worked example: fed `"<think>7+5</think>\\n<ans"`, `"wer>12</answer>"` it gives `("7+5", "")`, then `("", "12")`.
    """

    def __init__(self, *, thinking: bool = False) -> None:
        """`thinking`: whether the prompt ends inside the thinking."""
        self._splitter = Splitter(thinking=thinking)
        self._begun = {"thinking": False, "answer": False}
        self._space = {"thinking": "", "answer": ""}  # held back: it may be the end

    def feed(self, text: str) -> tuple[str, str]:
        """The complete text that `text` adds to the thinking and to the answer."""
        return self._add(self._splitter.feed(text))

    def end(self) -> tuple[str, str]:
        """The text that was held back."""
        return self._add(self._splitter.end())

    def _add(self, parts: list[Piece]) -> tuple[str, str]:
        new = {"thinking": "", "answer": ""}
        for kind, part in parts:
            side = "thinking" if kind == "thinking" else "answer"
            if not self._begun[side]:
                part = part.lstrip()
                self._begun[side] = bool(part)
            body = part.rstrip()
            if body:
                new[side] += self._space[side] + body
                self._space[side] = part[len(body) :]
            else:
                self._space[side] += part
        return new["thinking"], new["answer"]


class ReflectiveWords:
    """Counts whole words and phrases, ignoring case; in scripts without spaces every occurrence counts."""

    def __init__(self, words: Sequence[str] = REFLECTIVE_WORDS) -> None:
        self.words = tuple(words)
        body = "|".join(map(_pattern, sorted(words, key=len, reverse=True)))
        self._pattern = re.compile(body, re.IGNORECASE)

    def count(self, text: str) -> int:
        """Number of occurrences."""
        return len(self.spans(text))

    def spans(self, text: str) -> list[tuple[int, int]]:
        """[start, end) of each occurrence."""
        return [found.span() for found in self._pattern.finditer(text)] if self.words else []


_LETTER = "[0-9A-Za-zÀ-ɏ_]"
"""Letters of Latin words.

A character of another script ends a word, since models that mix languages put no space between.
"""


def _pattern(word: str) -> str:
    body = re.escape(word).replace(r"\ ", r"\s+")
    return rf"(?<!{_LETTER}){body}(?!{_LETTER})" if word.isascii() else body
