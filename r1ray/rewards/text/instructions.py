"""Instructions that a program can check: at least so many words, in capitals, as JSON, ... in the names of IFEval.

All that a prompt asks for must hold (strict accuracy of Zhou et al. 2023, arXiv 2311.07911). The answer on record is
{"instructions": [{"id": "length_constraints:number_words", "num_words": 100, "relation": "at least"}, ...]}; only what follows
the thinking is judged. The checks are our own, from the published descriptions; they are linear in the length of the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from r1ray.errors import DataError
from r1ray.rewards.answers.answer import answer_part
from r1ray.rewards.base import Reward, Sample
from r1ray.rewards.text.language import language_of
from r1ray.util.languages import LANGUAGES, code_of

Check = Callable[[str, Mapping[str, Any]], bool]
MAX_CHARS = 1 << 17
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_SENTENCE_END = re.compile(r"[.!?]+(?:\s|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionsVerifier(Reward):
    """1.0 where the answer keeps all instructions on record, else 0.0; with `partial` the share that it keeps."""

    partial: bool = False

    def __call__(self, sample: Sample) -> float:
        record = sample.answer
        wanted = record.get("instructions") if isinstance(record, Mapping) else None
        if not isinstance(wanted, list | tuple) or not wanted:
            raise DataError(f'the answer on record must be {{"instructions": [...]}}, it is {record!r:.80}')
        text = answer_part(sample.response, opened=sample.opened)[:MAX_CHARS].strip()
        text = text.removeprefix("<answer>").removesuffix("</answer>").strip()
        # An empty text keeps nothing, but faults of the record are told of it too.
        kept = [_keeps(text, instruction) and bool(text) for instruction in wanted]
        return sum(kept) / len(kept) if self.partial else float(all(kept))


def _keeps(text: str, instruction: Any) -> bool:
    if not isinstance(instruction, Mapping):
        raise DataError(f'an instruction on record must be {{"id": ..., ...}}, it is {instruction!r:.80}')
    name = str(instruction.get("id"))
    if name not in CHECKS:
        raise DataError(f"there is no check of the instruction {name!r}; there are {', '.join(CHECKS)}")
    try:
        return CHECKS[name](text, instruction)
    except (KeyError, TypeError, ValueError) as e:
        raise DataError(f"the instruction {name} lacks a value or has a wrong one: {e!r}") from e


def _related(count: int, given: Mapping[str, Any], key: str) -> bool:
    """Whether a count is "at least" or "less than" what is asked for; exactly that where no relation is named."""
    wanted, relation = int(given[key]), given.get("relation", given.get("let_relation", given.get("capital_relation")))
    if relation is None:
        return count == wanted
    return count < wanted if relation == "less than" else count >= wanted


def _count(text: str, phrase: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE))


def _paragraphs(text: str, separator: str) -> list[str]:
    return [part for part in text.split(separator) if part.strip()]


def _words(text: str, given: Mapping[str, Any]) -> bool:
    return _related(len(_WORD.findall(text)), given, "num_words")


def _sentences(text: str, given: Mapping[str, Any]) -> bool:
    return _related(len(_SENTENCE_END.findall(text)), given, "num_sentences")


def _is_json(text: str, given: Mapping[str, Any]) -> bool:
    body = re.sub(r"\A```(?:json)?\s*|\s*```\Z", "", text.strip(), flags=re.IGNORECASE)
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _first_word(text: str, given: Mapping[str, Any]) -> bool:
    paragraphs = _paragraphs(text, "\n\n")
    nth, wanted = int(given["nth_paragraph"]), str(given["first_word"]).lower()
    if len(paragraphs) != int(given["num_paragraphs"]) or not 1 <= nth <= len(paragraphs):
        return False
    first = _WORD.search(paragraphs[nth - 1])
    return first is not None and first.group().lower() == wanted


def _language(text: str, given: Mapping[str, Any]) -> bool:
    wanted = code_of(str(given["language"]))
    if wanted is None:
        raise DataError(
            f"the language {given['language']!r} is none of those that are told apart: {', '.join(LANGUAGES)}"
        )
    return language_of(text) == wanted


def _ends(text: str, given: Mapping[str, Any]) -> bool:
    return text.strip().strip('"').lower().endswith(str(given["end_phrase"]).strip().lower())


def _letters(text: str, given: Mapping[str, Any]) -> bool:
    return _related(text.lower().count(str(given["letter"]).lower()), given, "let_frequency")


def _capital_words(text: str, given: Mapping[str, Any]) -> bool:
    return _related(sum(w.isupper() for w in _WORD.findall(text)), given, "capital_frequency")


def _highlights(text: str, given: Mapping[str, Any]) -> bool:
    return len(re.findall(r"\*[^\n*]+\*", text)) >= int(given["num_highlights"])


def _sections(text: str, given: Mapping[str, Any]) -> bool:
    return len(re.findall(rf"\b{re.escape(str(given['section_spliter']))}\s*\d+", text)) >= int(given["num_sections"])


def _options(text: str, given: Mapping[str, Any]) -> bool:
    return any(option in text for option in ("My answer is yes.", "My answer is no.", "My answer is maybe."))


CHECKS: dict[str, Check] = {
    "keywords:existence": lambda t, g: all(_count(t, str(k)) for k in g["keywords"]),
    "keywords:forbidden_words": lambda t, g: not any(_count(t, str(w)) for w in g["forbidden_words"]),
    "keywords:frequency": lambda t, g: _related(_count(t, str(g["keyword"])), g, "frequency"),
    "keywords:letter_frequency": _letters,
    "language:response_language": _language,
    "length_constraints:number_words": _words,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": lambda t, g: len(_paragraphs(t, "***")) == int(g["num_paragraphs"]),
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": lambda t, g: (
        len(re.findall(r"\[[^\[\]\n]+\]", t)) >= int(g["num_placeholders"])
    ),
    "detectable_content:postscript": lambda t, g: str(g["postscript_marker"]).lower() in t.lower(),
    "detectable_format:number_bullet_lists": (
        lambda t, g: len(re.findall(r"^\s*[*-]\s+\S", t, re.MULTILINE)) == int(g["num_bullets"])
    ),
    "detectable_format:constrained_response": _options,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _is_json,
    "detectable_format:title": lambda t, g: re.search(r"<<[^<>\n]+>>", t) is not None,
    "combination:two_responses": lambda t, g: len({p.strip() for p in _paragraphs(t, "******")}) == 2,
    "combination:repeat_prompt": lambda t, g: t.startswith(str(g["prompt_to_repeat"]).strip()),
    "startend:end_checker": _ends,
    "startend:quotation": lambda t, g: len(t) > 1 and t.startswith('"') and t.endswith('"'),
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda t, g: t.isupper(),
    "change_case:english_lowercase": lambda t, g: t.islower(),
    "punctuation:no_comma": lambda t, g: "," not in t,
}
"""Instruction -> its check on the text with the values on record."""
