"""Near duplicates: the share of word n-grams (shingles) that two texts have in common.

Few texts, the responses to one prompt, are compared exactly. A whole dataset is compared by MinHash with banding
(Broder 1997; Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3): texts that agree in one band of
their signatures are candidates, and count as the same if at least the configured share of their signatures agrees. That
share estimates the Jaccard similarity with a standard error of at most 0.044.

Implemented here in numpy instead of taken from a library: the dataset is a pure function of the samples, so the result
must be the same on every machine and with every version of every package.
"""

from __future__ import annotations

import hashlib
import re
import struct
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from r1ray.data.grams import WORD

Shingles = npt.NDArray[np.uint64]
"""[n] hashes of a text's different shingles, ascending."""
Signature = npt.NDArray[np.uint32]
"""[SIGNATURE] minimum hash of the shingles under each hash function."""

SIGNATURE = 128
_TAG = re.compile(r"</?\w+>")
_TOKEN = re.compile(WORD.pattern + r"|[-+*/=<>^%]")
_RECALL = 0.995
"""Minimum probability that a pair at the similarity bound agrees in a band."""
_CHUNK = 1024
_BASE = np.uint64(0x9E3779B97F4A7C15)


def shingles(text: str, words: int) -> Shingles:
    """The shingles of `words` words of a text; a shorter text is one shingle.

    Case, tags and punctuation do not count; signs of arithmetic are words.
    """
    ids = np.fromiter((_word_id(word) for word in _TOKEN.findall(_TAG.sub(" ", text.lower()))), dtype=np.uint64)
    if not ids.size:
        return ids
    words = min(words, ids.size)
    count = ids.size - words + 1
    sums = np.zeros(count, dtype=np.uint64)
    for offset in range(words):  # a polynomial in the words' hashes, modulo 2^64
        sums = sums * _BASE + ids[offset : offset + count]
    return np.unique(_mixed(sums))


def jaccard(first: Shingles, second: Shingles) -> float:
    """Jaccard similarity of two sets of shingles; 1.0 if both are empty."""
    shared = np.intersect1d(first, second, assume_unique=True).size
    every = first.size + second.size - shared
    return shared / every if every else 1.0


def signature(text: Shingles) -> Signature:
    """The MinHash signature of a text. A text without words has a signature that no other text has."""
    least = np.full(SIGNATURE, np.iinfo(np.uint32).max, dtype=np.uint32)
    factors, terms = _functions()
    for start in range(0, text.size, _CHUNK):
        hashes = np.multiply.outer(factors, text[start : start + _CHUNK])  # [SIGNATURE, chunk], modulo 2^64
        hashes += terms[:, None]
        hashes >>= np.uint64(32)
        least = np.minimum(least, hashes.min(axis=1).astype(np.uint32))
    return least


class Seen:
    """Index of added texts for similarity queries. About 2 kB per text."""

    def __init__(self, similarity: float) -> None:
        """`similarity`: Jaccard, in (0, 1], from which two texts count as the same."""
        self._similarity = similarity
        self._rows = rows_of_a_band(similarity)
        self._bands: list[dict[bytes, list[int]]] = [{} for _ in range(SIGNATURE // self._rows)]
        self._signatures: list[Signature] = []

    def has(self, text: Signature) -> bool:
        """Whether an added text reaches the similarity bound."""
        near = {i for band, key in zip(self._bands, self._keys(text), strict=True) for i in band.get(key, ())}
        return any(np.mean(self._signatures[i] == text) >= self._similarity for i in near)

    def add(self, text: Signature) -> None:
        """Add a text."""
        for band, key in zip(self._bands, self._keys(text), strict=True):
            band.setdefault(key, []).append(len(self._signatures))
        self._signatures.append(text)

    def _keys(self, text: Signature) -> list[bytes]:
        return [text[i * self._rows : (i + 1) * self._rows].tobytes() for i in range(len(self._bands))]


def rows_of_a_band(similarity: float) -> int:
    """The longest bands, which give the fewest false candidates, that still find a pair of this similarity."""
    return max(r for r in range(1, SIGNATURE + 1) if r == 1 or _found(similarity, r) >= _RECALL)


def _found(similarity: float, rows: int) -> float:
    return float(1.0 - (1.0 - similarity**rows) ** (SIGNATURE // rows))


@lru_cache(maxsize=1 << 16)
def _word_id(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


@lru_cache(maxsize=1)
def _functions() -> tuple[Shingles, Shingles]:
    """Odd factors and terms of the hash functions h -> (h * factor + term) >> 32 (Dietzfelbinger et al. 1997)."""
    digest = b"".join(hashlib.blake2b(struct.pack("<I", i), digest_size=16).digest() for i in range(SIGNATURE))
    numbers = np.frombuffer(digest, dtype="<u8").astype(np.uint64).reshape(SIGNATURE, 2)
    return numbers[:, 0] | np.uint64(1), numbers[:, 1]


def _mixed(values: Shingles) -> Shingles:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
