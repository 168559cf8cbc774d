"""Verifier of instructions that a program can check (length, capitals, JSON, ...), under IFEval's names.

A response must follow all instructions of its prompt (strict accuracy of Zhou et al. 2023, arXiv
2311.07911). The ground truth is {"instructions": [{"id": "length_constraints:number_words",
"num_words": 100, "relation": "at least"}, ...]}. Only the text after the thinking is judged. The
checks are r1ray's own, after the published descriptions and the rules of the official checker;
their time is linear in the length of the text.
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
from r1ray.rewards.text.language import count_words
from r1ray.util.hints import suggestion
from r1ray.util.languages import LANGUAGES, code_of

Check = Callable[[str, Mapping[str, Any]], bool]
MAX_CHARS = 1 << 17
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_SENTENCE_END = re.compile(r"""[.!?…]+["'”’»)\]*_]*(?=\s|$)|[。！？]+[」』”’）]*""")
_ABBREVIATION = re.compile(
    r"\b(?:[A-Za-z]|[Dd]r|[Mm]rs?|[Mm]s|[Pp]rof|[Ss]t|[Jj]r|vs|etc|e\.g|i\.e|[Nn]o|[Ff]ig)\.(?=[^\S\n]+\S)"
)
_LIST_MARK = re.compile(r"^\s*(?:\d+[.)]|[*-])[^\S\n]", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionsVerifier(Reward):
    """1.0 if the answer follows all instructions of the ground truth, else 0.0; with `partial` the share it follows."""

    partial: bool = False

    def __call__(self, sample: Sample) -> float:
        """See Reward. The share of instructions that the answer follows, or 1.0 for all and else 0.0."""
        record = sample.answer
        wanted = record.get("instructions") if isinstance(record, Mapping) else None
        if not isinstance(wanted, list | tuple) or not wanted:
            raise DataError(f'the ground truth: expected {{"instructions": [...]}}, got {record!r:.80}')
        text = answer_part(sample.response, opened=sample.opened)[:MAX_CHARS].strip()
        text = text.removeprefix("<answer>").removesuffix("</answer>").strip()
        # An empty text follows nothing, but a fault of the ground truth is an error with it too.
        kept = [_follows(text, instruction) and bool(text) for instruction in wanted]
        return sum(kept) / len(kept) if self.partial else float(all(kept))


def _follows(text: str, instruction: Any) -> bool:
    if not isinstance(instruction, Mapping):
        raise DataError(f'an instruction of the ground truth: expected {{"id": ..., ...}}, got {instruction!r:.80}')
    name = str(instruction.get("id"))
    if name not in CHECKS:
        raise DataError(f"unknown instruction {name!r}{suggestion(name, CHECKS)}; expected one of {', '.join(CHECKS)}")
    try:
        return CHECKS[name](text, instruction)
    except (KeyError, TypeError, ValueError) as e:
        raise DataError(f"the instruction {name} of the ground truth has a missing or wrong value: {e!r}") from e


def _related(count: int, given: Mapping[str, Any], key: str) -> bool:
    """Whether a count has the relation ("at least", "less than") to the wanted one; without a relation, equality."""
    wanted, relation = int(given[key]), given.get("relation", given.get("let_relation", given.get("capital_relation")))
    if relation is None:
        return count == wanted
    return count < wanted if relation == "less than" else count >= wanted


def _count(text: str, keyword: str) -> int:
    """Occurrences of a keyword, also within longer words ("boot" in "boots"), in any case."""
    return len(re.findall(re.escape(keyword.strip()), text, re.IGNORECASE))


def _has_word(text: str, word: str) -> bool:
    """Whether a forbidden word occurs as a word of its own, in any case."""
    return re.search(rf"(?<!\w){re.escape(word.strip())}(?!\w)", text, re.IGNORECASE) is not None


def _paragraphs(text: str, separator: str) -> list[str]:
    return [part for part in text.split(separator) if part.strip()]


def _words(text: str, given: Mapping[str, Any]) -> bool:
    return _related(len(_WORD.findall(text)), given, "num_words")


def _sentences(text: str, given: Mapping[str, Any]) -> bool:
    """Text behind the last full stop is a sentence too; numbers of a list and abbreviations end none."""
    parts = _SENTENCE_END.split(_ABBREVIATION.sub(" ", _LIST_MARK.sub("", text)))
    return _related(sum(_WORD.search(part) is not None for part in parts), given, "num_sentences")


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
        raise DataError(f"the language {given['language']!r}: expected one of {', '.join(LANGUAGES)}")
    counts = count_words(text, wanted)
    return counts.get(wanted, 0.0) > 0.5 * sum(counts.values())


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
    "keywords:forbidden_words": lambda t, g: not any(_has_word(t, str(w)) for w in g["forbidden_words"]),
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
"""Instruction -> its check of a text, given the instruction with its values."""
