"""Output format of kept samples: unchanged, or thinking in its tags with a summary after it.

<think>7+5=12</think><answer>12</answer>   --think_summary-->   <think>\n7+5=12\n</think>\n\nThe answer is 12.
"""

from __future__ import annotations

from r1ray.rewards.answers.answer import answer_part, boxed

OPEN, CLOSE = "<think>", "</think>"
_BARE_CHARS = 200
"""A longer answer, or one of several lines, already is a summary."""


def think_summary(text: str, summary: str) -> str | None:
    """The response as thinking and summary; None if it does not think in tags and then answer.

    `summary` is the sentence for a bare answer, with {answer} in it. Any other answer, such as a
    program or a text with its own \\boxed{}, becomes the summary unchanged.
    """
    before, end, _ = text.rpartition(CLOSE)
    thinking = before.strip().removeprefix(OPEN).strip()
    if not end or not thinking or OPEN in thinking or CLOSE in thinking:
        return None
    closing = _closing(answer_part(text).strip(), summary)
    return with_thinking(thinking, closing) if closing else None


def with_thinking(thinking: str, closing: str) -> str:
    """Thinking in its tags, an empty line, and the closing text."""
    return f"{OPEN}\n{thinking.strip()}\n{CLOSE}\n\n{closing.strip()}"


def _closing(part: str, summary: str) -> str:
    """The answer part without its tags; a bare answer in a sentence."""
    start, tag, rest = part.partition("<answer>")
    if not tag:
        return part
    inside, _, after = rest.partition("</answer>")
    if "<answer>" in inside + after or "</answer>" in start + after:
        return ""
    inside = inside.strip()
    around = [piece for piece in (start.strip(), after.strip()) if piece]
    if around or not inside or "\n" in inside or len(inside) > _BARE_CHARS or boxed(inside):
        return "\n\n".join(piece for piece in (start.strip(), inside, after.strip()) if piece)
    return summary.replace("{answer}", inside)
