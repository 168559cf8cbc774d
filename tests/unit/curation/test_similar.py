"""Near duplicates: exact Jaccard against sets, MinHash against exact Jaccard."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ray.curation.similar import SIGNATURE, Seen, jaccard, rows_of_a_band, shingles, signature

WORDS = st.lists(st.sampled_from("abcdef"), max_size=12)


@given(WORDS, WORDS, st.integers(1, 4))
def test_jaccard_is_that_of_the_sets_of_n_grams(first: list[str], second: list[str], n: int) -> None:
    def grams(words: list[str]) -> set[tuple[str, ...]]:
        return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))} if words else set()

    a, b = grams(first), grams(second)
    expected = len(a & b) / len(a | b) if a | b else 1.0
    assert jaccard(shingles(" ".join(first), n), shingles(" ".join(second), n)) == expected


def test_case_and_punctuation_do_not_count_but_signs_do() -> None:
    plain = shingles("Then seven plus five is twelve", 3)
    assert jaccard(plain, shingles("then, SEVEN plus five: is twelve!", 3)) == 1.0
    assert jaccard(shingles("7+5", 2), shingles("7-5", 2)) == 0.0
    assert shingles("七加五", 2).size == 2  # by the character


def text(rng: random.Random, changed: int) -> tuple[str, str]:
    words = [f"w{rng.randrange(5000)}" for _ in range(400)]
    other = list(words)
    for place in rng.sample(range(400), changed):
        other[place] = "changed"
    return " ".join(words), " ".join(other)


@pytest.mark.parametrize("changed", [0, 4, 20, 100])
def test_signatures_agree_in_the_share_of_the_similarity(changed: int) -> None:
    first, second = (shingles(t, 3) for t in text(random.Random(changed), changed))
    agree = (signature(first) == signature(second)).mean()
    exact = jaccard(first, second)
    assert abs(agree - exact) <= 4 * (exact * (1 - exact) / SIGNATURE) ** 0.5


def test_what_is_similar_enough_is_seen_and_what_is_not_is_not() -> None:
    rng = random.Random(0)
    seen, found, other = Seen(0.8), 0, 0
    for _ in range(60):
        first, near = text(rng, 5)  # about 0.93 of 3-grams
        far, _ = text(rng, 0)
        seen.add(signature(shingles(first, 3)))
        found += seen.has(signature(shingles(near, 3)))
        other += seen.has(signature(shingles(far, 3)))
    assert (found, other) == (60, 0)


def test_texts_without_words_and_equal_texts_are_the_same() -> None:
    seen = Seen(1.0)
    for words in ("", "one two three"):
        assert not seen.has(signature(shingles(words, 5)))
        seen.add(signature(shingles(words, 5)))
        assert seen.has(signature(shingles(words + " !", 5)))


def test_bands_get_longer_with_the_similarity() -> None:
    lengths = [rows_of_a_band(s / 10) for s in range(1, 11)]
    assert lengths == sorted(lengths)
    assert lengths[-1] == SIGNATURE
    assert rows_of_a_band(0.9) == 9  # 14 bands: 1 - (1 - 0.9^9)^14 = 0.9989
