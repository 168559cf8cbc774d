"""The row at an index: shuffled epochs and weighted mixtures, as pure functions.

Neither uses a library's random generator, so that a run resumed under another version of that
library finds the same prompt at the same index.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

_MASK_64 = (1 << 64) - 1
_ROUNDS = 6
_SLOTS = 10_000


def permute(position: int, length: int, key: str) -> int:
    """The image of `position` under the permutation of range(length) that `key` names. O(1) time and memory.

    A Feistel network permutes the numbers up to the next power of four. Cycle walking applies it
    until the result is below `length`, which makes it a bijection of the range (Black and Rogaway,
    "Ciphers with arbitrary finite domains", 2002).
    """
    half = max(1, ((length - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    keys = _round_keys(key)
    while True:
        left, right = position >> half, position & mask
        for k in keys:
            left, right = right, left ^ (_mix(right ^ k) & mask)
        position = left << half | right
        if position < length:
            return position


@lru_cache(maxsize=64)
def _round_keys(key: str) -> tuple[int, ...]:
    digest = hashlib.blake2b(key.encode(), digest_size=8 * _ROUNDS).digest()
    return tuple(int.from_bytes(digest[i : i + 8], "little") for i in range(0, len(digest), 8))


def _mix(x: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every bit of x moves every bit of the result."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK_64
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK_64
    return x ^ x >> 31


class Interleave:
    """Spreads an endless index over several sources in proportion to their weights.

    Weights 2 and 1 repeat the pattern 0, 1, 0: index 4 is position 1 of source 1, index 5 position 3 of source 0.
    Shares are kept to one part in 10,000; a source with a smaller share gets one part.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        total = math.fsum(weights)
        counts = [max(1, round(_SLOTS * w / total)) for w in weights]
        divisor = math.gcd(*counts)
        self._counts = [c // divisor for c in counts]
        # The k-th of a source's n slots lies at (k + 1/2) / n of the block, so that slots are evenly spread.
        slots = sorted(((k + 0.5) / n, source, k) for source, n in enumerate(self._counts) for k in range(n))
        self._block = [(source, k) for _, source, k in slots]

    def locate(self, index: int) -> tuple[int, int]:
        """The source of `index`, and the position in that source's own order."""
        block, slot = divmod(index, len(self._block))
        source, k = self._block[slot]
        return source, block * self._counts[source] + k

    def counts(self, length: int) -> list[int]:
        """The number of indices below `length` that belong to each source."""
        blocks, rest = divmod(length, len(self._block))
        begun = Counter(source for source, _ in self._block[:rest])
        return [blocks * count + begun[source] for source, count in enumerate(self._counts)]


class Mixture:
    """Sources that join one after another: a new Interleave of the present sources whenever one joins.

    Example: weights 1 and 1, the second source from index 4 on. Indices 0 to 3 belong to the first;
    then both alternate, the first from its position 4, the second from 0.
    """

    def __init__(self, weights: Sequence[float], begins: Sequence[int]) -> None:
        """`begins[i]`: index from which source i takes part; at least one is 0."""
        assert min(begins) == 0, "the configuration's checks refuse a mixture that begins with nothing"
        self._starts = sorted(set(begins))
        self._phases: list[tuple[list[int], list[int], Interleave]] = []  # sources, positions before it, their order
        passed = [0] * len(weights)
        for i, start in enumerate(self._starts):
            sources = [s for s, begin in enumerate(begins) if begin <= start]
            order = Interleave([weights[s] for s in sources])
            self._phases.append((sources, [passed[s] for s in sources], order))
            if i + 1 < len(self._starts):
                for source, count in zip(sources, order.counts(self._starts[i + 1] - start), strict=True):
                    passed[source] += count

    def locate(self, index: int) -> tuple[int, int]:
        """The source of `index`, and the position in that source's own order."""
        phase = bisect.bisect_right(self._starts, index) - 1
        sources, passed, order = self._phases[phase]
        place, position = order.locate(index - self._starts[phase])
        return sources[place], passed[place] + position
