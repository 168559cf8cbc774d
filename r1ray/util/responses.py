"""What a model wrote, taken apart for reading: thinking, answer, and the rest.

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
"""Words that the R1 paper and its reproductions count as signs of self-correction, and their likes in Chinese."""

_NEXT: dict[Kind, dict[str, Kind]] = {
    "plain": {"<think>": "thinking", "<answer>": "answer"},
    "thinking": {"</think>": "plain"},  # an answer tag inside the thinking is a word of the thinking
    "answer": {"</answer>": "plain"},
}


class Splitter:
    """Splits a text that comes bit by bit. A tag may be cut anywhere.

    Worked example: fed `"<thi"`, `"nk>a</think>b"` it gives `[]`, then `[("thinking", "a"), ("plain", "b")]`.
    """

    def __init__(self, *, thinking: bool = False) -> None:
        """`thinking`: the prompt has opened the thinking already."""
        self._kind: Kind = "thinking" if thinking else "plain"
        self._held = ""

    def feed(self, text: str) -> list[Piece]:
        """The pieces that are certain after `text`; what may be the beginning of a tag is held back."""
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
        """What was held back: no tag after all."""
        held, self._held = self._held, ""
        return [(self._kind, held)] if held else []

    def _first_tag(self) -> tuple[int, str] | None:
        return min(((at, tag) for tag in _NEXT[self._kind] if (at := self._held.find(tag)) >= 0), default=None)

    def _tag_begun(self) -> int:
        """How many characters at the end of what is held may begin a tag."""
        tags = _NEXT[self._kind]
        longest = min(len(self._held), max(map(len, tags)) - 1)
        return next((n for n in range(longest, 0, -1) if any(tag.startswith(self._held[-n:]) for tag in tags)), 0)


def pieces(text: str) -> list[Piece]:
    """The pieces of a complete response, without the white space around each.

    Thinking that is closed and never opened was opened by the prompt.
    """
    closed = text.find("</think>")
    splitter = Splitter(thinking=closed >= 0 and "<think>" not in text[:closed])
    stripped = [(kind, part.strip()) for kind, part in splitter.feed(text) + splitter.end()]
    return [(kind, part) for kind, part in stripped if part]


class Apart:
    """Thinking and answer as two texts that grow, without the tags and without the white space around each.

    Worked example: fed `"<think>7+5</think>\\n<ans"`, `"wer>12</answer>"` it gives `("7+5", "")`, then `("", "12")`.
    """

    def __init__(self, *, thinking: bool = False) -> None:
        """`thinking`: the prompt has opened the thinking already."""
        self._splitter = Splitter(thinking=thinking)
        self._begun = {"thinking": False, "answer": False}
        self._space = {"thinking": "", "answer": ""}  # held back: it may be the end

    def feed(self, text: str) -> tuple[str, str]:
        """What `text` adds to the thinking and to the answer, as far as it is certain."""
        return self._add(self._splitter.feed(text))

    def end(self) -> tuple[str, str]:
        """What was held back."""
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
    """Counts whole words and phrases, whatever their case; in scripts without spaces, wherever they stand."""

    def __init__(self, words: Sequence[str] = REFLECTIVE_WORDS) -> None:
        self.words = tuple(words)
        body = "|".join(map(_pattern, sorted(words, key=len, reverse=True)))
        self._pattern = re.compile(body, re.IGNORECASE)

    def count(self, text: str) -> int:
        return len(self.spans(text))

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where they stand: [start, end) of each."""
        return [found.span() for found in self._pattern.finditer(text)] if self.words else []


_LETTER = "[0-9A-Za-zÀ-ɏ_]"
"""A word of the Latin script ends where a sign of another one follows: models that mix languages put no space between."""


def _pattern(word: str) -> str:
    body = re.escape(word).replace(r"\ ", r"\s+")
    return rf"(?<!{_LETTER}){body}(?!{_LETTER})" if word.isascii() else body
