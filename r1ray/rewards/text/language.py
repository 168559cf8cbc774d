"""Language reward: the share of words of the chain of thought in the target language (DeepSeek-R1, 2.3.2).

The script determines most languages. `r1ray.rewards.text.latin` distinguishes those in the Latin
script sentence by sentence. Code, formulas, names of functions and single letters do not count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from r1ray.errors import ConfigError, DataError
from r1ray.rewards.answers.answer import chain_of_thought
from r1ray.rewards.base import Reward, Sample
from r1ray.rewards.text.latin import LatinSentences
from r1ray.rewards.text.words import LISTED_IN, NEIGHBOURS, OTHER
from r1ray.util.languages import LANGUAGES, code_of

MAX_CHARS = 1 << 17
"""Only the beginning of a longer chain of thought counts."""
_SIGN_WORDS = 0.6
"""Words per Chinese or Japanese character: their words have one or two characters."""
_LONE_HAN = 6
"""Maximum number of Chinese characters in a sentence without kana that may be Japanese, in a Japanese text."""

_SCRIPTS = {
    "hangul": r"[\u1100-\u11ff\uac00-\ud7af]+",
    "kana": r"[\u3040-\u30ff\u31f0-\u31ff]",
    "han": r"[\u3400-\u4dbf\u4e00-\u9fff]",
    "ru": r"[\u0400-\u04ff]{2,}",
    "ar": r"[\u0600-\u06ff\u0750-\u077f]{2,}",
    "hi": r"[\u0900-\u097f]{2,}",
    "el": r"[\u0370-\u03ff]{3,}",
    "he": r"[\u0590-\u05ff]{2,}",
    "th": r"[\u0e00-\u0e7f]+",
    "bn": r"[\u0980-\u09ff]{2,}",
    "pa": r"[\u0a00-\u0a7f]{2,}",
    "gu": r"[\u0a80-\u0aff]{2,}",
    "ta": r"[\u0b80-\u0bff]{2,}",
    "te": r"[\u0c00-\u0c7f]{2,}",
    "kn": r"[\u0c80-\u0cff]{2,}",
    "latin": r"[A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ]{2,}",
}
_TELLING = tuple(code for code in _SCRIPTS if code not in ("hangul", "kana", "han", "latin"))
"""Scripts that are named after their only language here, or their main one."""
_WORDS = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _SCRIPTS.items()))
_SENTENCE = re.compile(r"[.!?;:。！？；：\n।؟]+")
_FENCED = re.compile(r"^[ \t]*```.*?^[ \t]*```", re.MULTILINE | re.DOTALL)
# Each alternative ends at a character that could start it again, so that the time is linear in any text.
_FORMULA = re.compile(
    r"`[^`\n]{1,400}`|\$\$[^$]{1,4000}\$\$|\$[^$\n]{1,400}\$"
    r"|\\\((?:[^\\\n]|\\[^()\n]){1,400}\\\)|\\\[(?:[^\\]|\\[^\[\]]){1,4000}\\\]|\\[A-Za-z]+(?:\{[^{}\n]{0,100}\})?"
)
_FUNCTION = re.compile(
    r"\b(?:(?:arc|a)?(?:sin|cos|tan)h?|cot|sec|csc|log|ln|lg|exp|max|min|sup|inf|lim|gcd|lcm|mod"
    r"|det|deg|dim|ker|arg|sgn|abs|sqrt)"
    r"(?=\s*(?:[(\[{|^_\d]|[^\W\d_]\b))"
)
"""Name of a function with what it is applied to: a bracket, a number or a letter."""
_ASCII_RUN = re.compile(r"[!-~]+")
_CODE_SIGN = re.compile(r"[\d_=^<>@/\\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Language(Reward):
    """The share, in [0, 1]; 0 if the chain of thought has no words.

    The target is `target`, else the row's `target_language`, else the language of the question.
    """

    target: str | None = None  # a code such as en, or a name

    def __post_init__(self) -> None:
        if self.target is not None and code_of(self.target) is None:
            raise ConfigError(f"language: target: expected one of {', '.join(LANGUAGES.values())}, got {self.target!r}")

    def __call__(self, sample: Sample) -> float:
        """See Reward. The share of words of the chain of thought that are in the target language."""
        counts = count_words(chain_of_thought(sample.response, opened=sample.opened), target := self.target_of(sample))
        total = sum(counts.values())
        return counts.get(target, 0.0) / total if total else 0.0

    def target_of(self, sample: Sample) -> str:
        """The code of the target language. Raises DataError if it cannot be determined."""
        named = self.target or sample.meta.get("target_language")
        if named is None:
            asked = "\n".join(m["content"] for m in sample.messages if m["role"] == "user")
            code = language_of(asked)
        else:
            code = code_of(str(named))
        if code is None:
            raise DataError(
                f"the target language, {named!r}, is unknown: set the row's target_language, or the "
                f"reward's target, to one of {', '.join(LANGUAGES.values())}"
            )
        return code


def language_of(text: str) -> str | None:
    """The language of most words of a text; None if it has no words, or is in an unknown language."""
    counts = count_words(text, None)
    code = max(counts, key=lambda code: counts[code]) if counts else None
    return None if code == OTHER else code


def count_words(text: str, target: str | None) -> dict[str, float]:
    """Number of words by language. `target` gets the benefit of the doubt if a sentence has no clear language."""
    text = _FORMULA.sub(" ", _FENCED.sub("\n", text[:MAX_CHARS]))
    text, functions = _FUNCTION.subn(" ", text)
    text = _ASCII_RUN.sub(lambda run: " " if _CODE_SIGN.search(run.group()) else run.group(), text)
    counts: Counter[str] = Counter()
    kana = re.search(_SCRIPTS["kana"], text) is not None
    neighbour: dict[str, str] = {}  # script -> language whose letters were seen last
    sentences = LatinSentences(target)
    for sentence in _SENTENCE.split(text):
        words = [(str(m.lastgroup), m.group()) for m in _WORDS.finditer(sentence)]
        scripts = Counter(script for script, _ in words)
        if latin := [word for script, word in words if script == "latin"]:
            counts.update(_word_languages(latin, sentences.language(latin)))
        japanese = scripts["kana"] or (kana and scripts["han"] <= _LONE_HAN)
        counts["ja" if japanese else "zh"] += scripts["han"] * _SIGN_WORDS  # type: ignore[assignment]
        counts["ja"] += scripts["kana"] * _SIGN_WORDS  # type: ignore[assignment]
        counts["ko"] += scripts["hangul"]
        for code in _TELLING:
            if code in NEIGHBOURS and scripts[code]:
                neighbour[code] = _neighbour(code, [w for s, w in words if s == code]) or neighbour.get(code, code)
            counts[neighbour.get(code, code)] += scripts[code]
    if target and functions and not counts.total():
        counts[target] = functions  # "sin p + sin q" is in any language
    return {code: float(count) for code, count in counts.items() if count}


def _neighbour(script: str, words: list[str]) -> str | None:
    """The main language of the script, or OTHER if letters of its neighbours prevail; None without evidence."""
    foreign, own = (sum(any(c in letters for c in w.lower()) for w in words) for letters in NEIGHBOURS[script])
    return None if foreign == own else OTHER if foreign > own else script


def _word_languages(words: list[str], sentence: str) -> Iterator[str]:
    """The language of each word: the sentence's, or another for two or more adjacent function words of that one.

    A single such word may be a name or a loan (`van`, `die`).
    """
    listed = [LISTED_IN.get(word.casefold(), frozenset()) for word in words]
    foreign = [bool(codes) and sentence not in codes for codes in listed]
    for i, codes in enumerate(listed):
        near = [j for j in (i - 1, i + 1) if 0 <= j < len(words) and foreign[i] and foreign[j] and codes & listed[j]]
        yield min(codes & listed[near[0]]) if near else sentence
