"""Find the answers in a response.

Only the answer part counts: the text behind the last `</think>`. The first of these that it has decides:

    <answer> ... </answer>      a \\boxed{} inside it, else a closing "answer is ..." inside it, else all of it
    \\boxed{ ... }              the last one, with those that "or", "and" or a comma join to it: one answer of several values
    "answer is ..." or "#### ..."   on the last such line, or on the next line if that one ends there; in other languages too
    the answer part itself      if it is one short line

A box beside <answer> is an answer too, and must agree with it. Everything here is linear in the length of the text,
hostile text included.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

MAX_ANSWER_CHARS = 4_000
"""A longer text is no answer."""
MAX_ANSWERS = 16
"""A response with more answers than this has none."""
MAX_PART_CHARS = 1 << 16
"""Only the end of a longer answer part counts."""
_MAX_BARE_CHARS = 200

_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|(?<!\\)[{}]")
_CLOSING = re.compile(
    r"(?:\banswer(?:\s+(?:to|for|of)\b[^.\n:=]{0,60}?)?"
    r"(?:(?:,[ \t]*\w+,)?[ \t]+(?:is|(?:would|must|should|will)[ \t]+be|equals)\b\s*:?|[*_]{0,3}\s*:|\s*=)"
    r"|\b(?:option|choice)\s+is\b\s*:?|^[ \t]*####(?!#)"
    r"|^[ \t]*(?:#{1,6}[ \t]*|[*_]{1,3})(?:(?:the|final|correct|my)[ \t]+)*(?:answer|答案|最终答案|最終答案|정답|ответ)[ \t*_]*$"
    r"|^[ \t]*(?:(?:the[ \t]+)?final[ \t]+)?answer[ \t]*$"
    r"|(?<!\w)(?:antwort|réponse|respuesta|risposta|resposta|antwoord|ответ|απάντηση|الإجابة|الجواب|תשובה|उत्तर)(?:\s[^\W\d_]+)?"
    r"(?:[*_]{0,3}\s*[:：=]|\s+(?:[—–-]|(?:ist|lautet|est|es|è|é|is|είναι|هي|هو|है|равен)(?!\w)\s*:?))"
    r"|(?:答案|答え|回答|답|คำตอบ)[*_]{0,3}\s*(?:[:：=]|(?:应该|應該)?(?:是|为|為|は|은|는|คือ)\s*[:：]?)"
    r"|选(?:择|項|项)?\s*[:：]?\s*(?=[（(【]?\s?[A-Za-z](?![A-Za-z]))|選(?:擇)?\s*[:：]?\s*(?=[（(【]?\s?[A-Za-z](?![A-Za-z])))(.*)$",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE = re.compile(r"[A-Z](?:[^.\n]|\.(?=\d))*?\b(?:is|are|equals)\s*:?\s+(?=[$\\\\]*[({\[\\\\]?[-+]?[\d\\\\])")
"""What goes before the value in `The largest of them is 12`."""
_ADVERB = re.compile(
    r"(?:(?:therefore|thus|then|hence|simply|just|also|indeed|exactly|equal to|given by|probably)\b[,:]?\s*)+",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"(?:approximately|about|roughly|around|ungefähr|etwa|environ|aproximadamente|circa|примерно|大约|大約|约|約|≈|\\approx\b)\s*",
    re.IGNORECASE,
)
_JOINT = re.compile(
    r"""(?:[\s$,;.&}]|\\[()\[\],;:\ ]|\\q?quad|\([^()\n]{0,60}\)|\\text\s*\{
      | [A-Za-z]\w{0,2}\s*(?:_\{?\w{1,3}\}?)?\s*= | \b(?:or|and|as\ well\ as|oder|und|ou|et)\b | [和或、，；])*""",
    re.VERBOSE,
)
"""What may stand between two boxes that are one answer."""
_SENTENCE_END = re.compile(r"\.\s|\.\$|\n\s*\n|。")
_MAX_JOINT_CHARS = 120
_AFTERWARDS = re.compile(
    r"(?<=[^\s.])\.\s+(?=[^\W\d_a-z])|。|,?\s(?:because|since|which|as|weil|car|porque|perché|pois)\s|[，,]?\s*(?:因为|因為)"
)
"""Where an explanation begins behind an answer on the same line."""
_COPULA = re.compile(r"\s*(?:です|である|입니다|이다|है)[.。।]?$")
"""The verb behind the answer, in languages that put it last."""
_MARKS = " \t\r\n*_`"


def opening(meta: Mapping[str, Any]) -> str:
    """The start of the response that the prompt contains, from its meta data: `<think>` and white space, or nothing.

    Framing records it if the template opens the thinking. A column of that name with another value is ignored.
    """
    text = str(meta.get("opening", ""))
    return text if text.rstrip() == "<think>" else ""


def answer_part(response: str, *, opened: bool = False) -> str:
    """The text behind the chain of thought; empty if that does not end. `opened`: the prompt ends with `<think>`."""
    end = response.rfind("</think>")
    if end < 0:
        return "" if opened or "<think>" in response else response
    part = response[end + len("</think>") :]
    reopened = part.find("<think>")
    return part if reopened < 0 else part[:reopened]


def chain_of_thought(response: str, *, opened: bool = False) -> str:
    """The text before the last `</think>`, without tags; the whole response if it has no such tags."""
    end = response.rfind("</think>")
    start = response.find("<think>")
    if end < 0:
        return response if start < 0 else response[start + len("<think>") :]
    start = 0 if start < 0 or start > end or opened else start + len("<think>")
    return response[start:end].replace("<think>", " ").replace("</think>", " ")


def answers(
    response: str, *, opened: bool = False, complete: bool = True, accept: Callable[[str], bool] | None = None
) -> list[str]:
    """The answers that a response gives, in order; empty if it gives none. Never more than MAX_ANSWERS.

    Several are the values of one answer, or answers in tags and beside them, which must agree. `complete`: the
    response was not cut off; in one that was, only answers with a closing delimiter count. `accept`: which boxes can be
    answers at all, such as those that name an option; if none can, all are looked at.
    """
    part = answer_part(response, opened=opened)[-MAX_PART_CHARS:]
    tagged, outside = _tagged(part)
    if tagged:
        found = [a for text in tagged for a in (last_boxes(text, accept) or _closing(text) or [text])]
        found += last_boxes(outside, accept)
    else:
        found = last_boxes(part, accept)
        if not found and complete:
            found = _closing(part) or _bare(part)
    cleaned = [a.strip() for a in found]
    good = len(cleaned) <= MAX_ANSWERS and all(0 < len(a) <= MAX_ANSWER_CHARS for a in cleaned)
    return cleaned if good else []


def last_boxes(text: str, accept: Callable[[str], bool] | None = None) -> list[str]:
    """The contents of the last `\\boxed{}` and of those that its sentence joins to it.

    With `accept`, the last of which one is accepted, without those that are not.
    """
    groups = _joined(text)
    for group in reversed(groups[-MAX_ANSWERS:] if accept else ()):
        if good := [
            box for box in group if len(box) <= MAX_ANSWER_CHARS and accept is not None and accept(box.strip())
        ]:
            return good
    return groups[-1] if groups else []


def boxed(text: str) -> list[str]:
    """The contents of each complete `\\boxed{}`; of nested ones the inner. One without an end is left out."""
    return [text[start:end] for _, start, end in _boxes(text)]


def _joined(text: str) -> list[list[str]]:
    """The boxes, with those in one list that only separators, `or` and `and` stand between."""
    groups: list[list[str]] = []
    past = -1  # behind the last box
    for begin, start, end in _boxes(text):
        between = text[past:begin] if 0 <= past <= begin <= past + _MAX_JOINT_CHARS else None
        if between is not None and not _SENTENCE_END.search(between) and _JOINT.fullmatch(between):
            groups[-1].append(text[start:end])
        else:
            groups.append([text[start:end]])
        past = end + 1
    return groups


def _boxes(text: str) -> list[tuple[int, int, int]]:
    """(start of the command, start, end of the content) of each complete box, in order; of nested ones the inner."""
    found: list[tuple[int, int, int]] = []
    opened: list[
        tuple[int, int]
    ] = []  # of each open brace: where its command and its content begin; -1 for a plain brace
    innermost = -1  # start of the last box that was opened
    for token in _BRACE.finditer(text):
        kind = token.group()
        if kind[-1] == "{":
            opened.append((token.start(), token.end()) if len(kind) > 1 else (-1, -1))
            innermost = max(innermost, opened[-1][1])
        elif opened:
            begin, start = opened.pop()
            if start >= 0 and start == innermost:
                found.append((begin, start, token.start()))
    return found


def _tagged(part: str) -> tuple[list[str], str]:
    """The texts inside complete <answer> tags, and the text outside them."""
    found: list[str] = []
    outside: list[str] = []
    past = 0
    while len(found) <= MAX_ANSWERS:
        start = part.find("<answer>", past)
        end = part.find("</answer>", start)
        if start < 0 or end < 0:
            break
        found.append(part[start + len("<answer>") : end])
        outside.append(part[past:start])
        past = end + len("</answer>")
    return found, " ".join([*outside, part[past:]])


def _closing(text: str) -> list[str]:
    """The value on the last line such as "the answer is ...", or on the line below if that one ends there."""
    tail = text[-2 * MAX_ANSWER_CHARS :]
    last = next(iter(deque(_CLOSING.finditer(tail), maxlen=1)), None)
    if last is None:
        return []
    # "the answer is 4, that is: the answer is 5" is one line; the last words decide.
    said = re.split(r"\banswer\s+is\b\s*:?", last[1], flags=re.IGNORECASE)[-1].strip(_MARKS)
    if not said:
        said = tail[last.end() :].lstrip(_MARKS).partition("\n")[0]
    if sentence := _SENTENCE.match(said):
        said = said[sentence.end() :]
    said = _ADVERB.sub("", said, count=1) if _ADVERB.match(said) else said
    said = _AFTERWARDS.split(said, maxsplit=1)[0].strip(_MARKS)
    said = _COPULA.sub("", _HEDGE.sub("", said, count=1) if _HEDGE.match(said) else said)
    said = said.removesuffix(".").strip(_MARKS)
    return [said] if said else []


def _bare(part: str) -> list[str]:
    line = part.strip()
    broken = any(mark in line for mark in ("\\boxed", "\\fbox", "<answer>", "</answer>"))
    return [line] if 0 < len(line) <= _MAX_BARE_CHARS and "\n" not in line and not broken else []
