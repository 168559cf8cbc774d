"""Format reward: thinking in its tags, then the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from r1ray.errors import ConfigError
from r1ray.rewards.base import Reward, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Format(Reward):
    """1.0 if the response has the form, else 0.0.

    r1_zero: `<think> ... </think> <answer> ... </answer>`, each once and not empty, with only white
    space around them. think: `<think> ... </think>` once and not empty, then an answer that is not
    empty. A tag at the end of the prompt belongs to the response, which must not repeat it.
    """

    style: Literal["r1_zero", "think"] = "r1_zero"
    tags: tuple[str, str] = ("think", "answer")

    def __post_init__(self) -> None:
        if not all(tag.isidentifier() for tag in self.tags) or self.tags[0] == self.tags[1]:
            raise ConfigError(
                f"format: tags: expected two different names, e.g. [think, answer], got {list(self.tags)}"
            )

    def __call__(self, sample: Sample) -> float:
        """See Reward. 1.0 if the response has the form, else 0.0."""
        thinking, rest = _first_block(sample.opening + sample.response, self.tags[0])
        if not thinking or _has_tag(rest, self.tags[0]) or _has_tag(thinking, self.tags[1]):
            return 0.0
        if self.style == "think":
            return float(bool(rest.strip()))
        answer, after = _first_block(rest, self.tags[1])
        return float(bool(answer) and not after.strip() and not _has_tag(answer, self.tags[0]))


def _first_block(text: str, tag: str) -> tuple[str, str]:
    """The stripped content of the block at the start of the text (empty if none, or nested), and the rest."""
    text = text.lstrip()
    start, end = f"<{tag}>", f"</{tag}>"
    if not text.startswith(start) or text.count(start) != 1 or text.count(end) != 1:
        return "", text
    inside, _, after = text[len(start) :].partition(end)
    return inside.strip(), after


def _has_tag(text: str, tag: str) -> bool:
    return f"<{tag}>" in text or f"</{tag}>" in text
