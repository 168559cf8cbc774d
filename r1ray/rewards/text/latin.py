"""Language of a sentence in the Latin script, by function words, letters and character n-grams."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from r1ray.rewards.text.words import LATIN, LETTERS, LISTED_IN, OTHER

_CLEAR_VOTES = 4
"""So many function words and letters for a language, and half as many for the next one, need no n-grams."""
_VOTE = 1.0
"""What a function word adds to the logarithm of a language's probability by n-grams."""
_FLOOR = 1e-3
"""Least probability by n-grams: a wrong one of a short sentence is outweighed by seven votes."""
_DOUBT = 1.5
"""The target may be this much below the best language, in the same unit, and still be taken."""
_ENOUGH = 3
"""So many words show a language."""
_CARRIED = 24
"""So many words without a vote are taken for the language before them, before n-grams are compared again."""
_MAX_CHARS = 400
"""Of a longer sentence, n-grams of the beginning are compared; the time of a comparison grows with the text."""
_UNLISTED = ("da", "cs", "ro", "hu", "fi", "et", "ca")
"""Languages without a list of function words, so that a text in them is not taken for a similar listed one."""


class LatinSentences:
    """The language of each sentence of one text, in their order.

    Votes of function words and letters decide if they are clear. Otherwise the sentence is in the
    language of those before it, for up to `_CARRIED` words without a vote for it. Only what is then
    still open is compared by n-grams, so that a long text costs little more than its votes.
    """

    def __init__(self, target: str | None) -> None:
        """`target`: the expected language, which gets the benefit of the doubt; None if there is none."""
        self._target = target if target in LATIN else None
        self._current: str | None = None  # language shown by the sentences so far
        self._carried = 0  # words since the last evidence for it
        self._short: list[str] = []  # the last words of sentences that were too short to show a language

    def language(self, words: Sequence[str]) -> str:
        """The code of the language of the next sentence, given as its words of two and more letters.

        OTHER for a language without a list of function words.
        """
        votes = _votes(words)
        ranked = votes.most_common(2)
        if ranked and ranked[0][1] >= _CLEAR_VOTES and (len(ranked) == 1 or 2 * ranked[1][1] <= ranked[0][1]):
            return self._show(ranked[0][0])
        if ranked and len(set(words)) < _ENOUGH and votes[str(self._target)] == ranked[0][1]:  # too short for n-grams
            return str(self._target)
        if self._current and (not ranked or votes[self._current] == ranked[0][1]):
            self._carried = 0 if ranked else self._carried + len(words)
            if self._carried <= _CARRIED:
                return self._current
        if len(words) < _ENOUGH:  # "Good. Now this.": compare it with the short ones before it
            words = self._short = [*self._short, *words][-2 * _ENOUGH :]
        language = _compare(words, self._target)
        return self._show(language) if len(words) >= _ENOUGH else language

    def _show(self, language: str) -> str:
        self._current, self._carried = language, 0
        return language


def _compare(words: Sequence[str], target: str | None) -> str:
    """The language with the highest sum of votes and n-gram score, or the target if it is nearly as high."""
    # Names are in no language. A sentence of capitalised words only, such as a title, is looked at as it is.
    plain = [word for word in words if not word[0].isupper()]
    scores = _ngram_scores(" ".join(plain if len(plain) > 1 else words))
    scores.update({code: scores[code] + _VOTE * count for code, count in _votes(words).items() if code in scores})
    best = max(scores, key=lambda code: scores[code])
    if target is not None and scores[target] >= scores[best] - _DOUBT:
        return target
    return best if best in LATIN else OTHER


def _votes(words: Sequence[str]) -> Counter[str]:
    """Function words and letters by language; the letters of capitalised words, which may be names, do not count."""
    votes: Counter[str] = Counter()
    for word in words:
        votes.update(sorted(LISTED_IN.get(word.casefold(), ())))  # sorted: the first of equals wins in every process
        if not word.isascii() and not word[0].isupper():
            votes.update(code for code, letters in LETTERS.items() if any(letter in word for letter in letters))
    return votes


def _ngram_scores(text: str) -> dict[str, float]:
    """Language -> logarithm of its probability, at least that of `_FLOOR`."""
    values = _detector().compute_language_confidence_values(text[:_MAX_CHARS])
    return {v.language.iso_code_639_1.name.lower(): math.log(max(v.value, _FLOOR)) for v in values}


@lru_cache(maxsize=1)
def _detector() -> Any:
    """Lingua's detector with all its n-grams. Its models take 500 MB and are loaded by the first sentence in doubt."""
    from lingua import IsoCode639_1, LanguageDetectorBuilder

    codes = [getattr(IsoCode639_1, code.upper()) for code in (*sorted(LATIN), *_UNLISTED)]
    return LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build()
