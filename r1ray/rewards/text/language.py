"""Language consistency: the share of the words of the chain of thought that are in the target language (DeepSeek-R1, 2.3.2).

Scripts tell most languages apart. Those in the Latin script are told apart word by word where a word is a function word of
one of them, else by the function words of its sentence. Code, formulas and single letters do not count.
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
"""Of a longer chain of thought, the beginning is looked at."""
_SIGN_WORDS = 0.6
"""Words that a Chinese or Japanese character counts as: their words have between one and two."""
_LONE_HAN = 6
"""So many Chinese characters in a row without kana may still be Japanese, in a text that is."""

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
"""Scripts that are named for the only one of our languages, or the main one, that is written in them."""
_WORDS = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _SCRIPTS.items()))
_SENTENCE = re.compile(r"[.!?;:。！？；：\n।؟]+")
_FENCED = re.compile(r"^[ \t]*```.*?^[ \t]*```", re.MULTILINE | re.DOTALL)
# Each alternative stops at what would begin it anew, so that the time is linear in any text.
_FORMULA = re.compile(
    r"`[^`\n]{1,400}`|\$\$[^$]{1,4000}\$\$|\$[^$\n]{1,400}\$"
    r"|\\\((?:[^\\\n]|\\[^()\n]){1,400}\\\)|\\\[(?:[^\\]|\\[^\[\]]){1,4000}\\\]|\\[A-Za-z]+(?:\{[^{}\n]{0,100}\})?"
)
_FUNCTION = re.compile(
    r"\b(?:(?:arc|a)?(?:sin|cos|tan)h?|cot|sec|csc|log|ln|lg|exp|max|min|sup|inf|lim|gcd|lcm|mod|det|deg|dim|ker|arg|sgn|abs|sqrt)"
    r"(?=\s*(?:[(\[{|^_\d]|[^\W\d_]\b))"
)
"""Name of a function with what it is applied to: a bracket, a number or a letter."""
_ASCII_RUN = re.compile(r"[!-~]+")
_CODE_SIGN = re.compile(r"[\d_=^<>@/\\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Language(Reward):
    """The share, in [0, 1]; 0 where the chain of thought has no words at all.

    The target is `target`, or else the row's `target_language`, or else the language of the question.
    """

    target: str | None = None  # a code such as en, or a name

    def __post_init__(self) -> None:
        if self.target is not None and code_of(self.target) is None:
            raise ConfigError(
                f"language: target = {self.target!r} is unknown; there are {', '.join(LANGUAGES.values())}"
            )

    def __call__(self, sample: Sample) -> float:
        """See Reward. The share of words of the chain of thought that are in the target language."""
        counts = count_words(chain_of_thought(sample.response, opened=sample.opened), target := self.target_of(sample))
        total = sum(counts.values())
        return counts.get(target, 0.0) / total if total else 0.0

    def target_of(self, sample: Sample) -> str:
        """The code of the target language. Raises DataError where nothing tells it."""
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
    """The language that most words of a text are in; None where it has none, or one that is not told apart."""
    counts = count_words(text, None)
    code = max(counts, key=lambda code: counts[code]) if counts else None
    return None if code == OTHER else code


def count_words(text: str, target: str | None) -> dict[str, float]:
    """Words by language; `target` gets the benefit of the doubt, where a sentence tells nothing of its language."""
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
    """The language of the script's name, or OTHER where the letters of its neighbours prevail; None where nothing tells."""
    foreign, own = (sum(any(c in letters for c in w.lower()) for w in words) for letters in NEIGHBOURS[script])
    return None if foreign == own else OTHER if foreign > own else script


def _word_languages(words: list[str], sentence: str) -> Iterator[str]:
    """The language of each word: that of the sentence, but for two and more neighbours that are function words of another.

    A single such word may be a name or a loan (`van`, `die`).
    """
    listed = [LISTED_IN.get(word.casefold(), frozenset()) for word in words]
    foreign = [bool(codes) and sentence not in codes for codes in listed]
    for i, codes in enumerate(listed):
        near = [j for j in (i - 1, i + 1) if 0 <= j < len(words) and foreign[i] and foreign[j] and codes & listed[j]]
        yield min(codes & listed[near[0]]) if near else sentence
