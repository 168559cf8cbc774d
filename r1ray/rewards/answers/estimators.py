"""pass@k and cons@k from n samples of one problem."""

from __future__ import annotations

import math
from collections.abc import Sequence


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The probability that at least one of k samples, drawn from `samples` without replacement, is right.

    1 - C(n - c, k) / C(n, k) for n samples of which c are right: unbiased for k <= n (Chen et al. 2021, arXiv
    2107.03374, equation 1), as the product 1 - prod_{i = n-c+1}^{n} (1 - k / i), which cannot overflow. Worked example:
    n = 4, c = 1, k = 2: 1 - 3/6 = 0.5. Raises ValueError unless 1 <= k <= n and 0 <= c <= n.
    """
    if not (1 <= k <= samples and 0 <= right <= samples):
        raise ValueError(f"pass@{k} of {right} right in {samples} samples")
    if samples - right < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(samples - right + 1, samples + 1))


def consensus(answers: Sequence[str | None], right: Sequence[float]) -> float:
    """cons@n: whether the answer that most samples give is right, in [0, 1].

    `answers[i]` is the canonical answer of sample i; None, if it has none, is no vote. `right[i]` is its verdict; an
    answer's value is the mean of its samples' verdicts. If several answers have most votes, the result is their mean,
    as if a coin chose. Without votes it is 0. Worked example: answers 5, 5, 7, 7, None with 7 right: 0.5.
    """
    verdicts: dict[str, list[float]] = {}
    for answer, verdict in zip(answers, right, strict=True):
        if answer is not None:
            verdicts.setdefault(answer, []).append(verdict)
    if not verdicts:
        return 0.0
    most = max(map(len, verdicts.values()))
    leaders = [math.fsum(v) / len(v) for v in verdicts.values() if len(v) == most]
    return math.fsum(leaders) / len(leaders)


def ks(samples: int) -> list[int]:
    """The k for which pass@k is reported: powers of two up to the number of samples, and that number."""
    powers = [1 << e for e in range(samples.bit_length()) if 1 << e <= samples]
    return powers if powers[-1] == samples else [*powers, samples]
