"""Corpora of the embedded models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from learner.tiny import bilingual, corpus
from learner.tiny.corpus import Document

FlavorName = Literal["plain", "bilingual"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavor:
    """A corpus and its vocabulary; the same for every seed and size."""

    documents: Callable[[int, int], list[Document]]  # (seed, count)
    steps: int  # of pretraining
    vocabulary: int  # tokens in all: 256 bytes, end of text, padding, four tags, and the merges of common words


FLAVORS: dict[FlavorName, Flavor] = {
    "plain": Flavor(documents=corpus.documents, steps=550, vocabulary=361),
    "bilingual": Flavor(documents=bilingual.documents, steps=700, vocabulary=432),
}
