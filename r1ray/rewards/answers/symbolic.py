"""Mathematical equivalence of a truth and answers. Runs in a worker process only: sympy may hang, or use all memory.

Both texts are cleaned (`latex`), read as trees (`outline`), and compared branch by branch (`comparison`). Leaves are
numbers (`numbers`), words, or expressions (`algebra`), with units that may be left out (`units`).
"""

from __future__ import annotations

from r1ray.rewards.answers.comparison import Comparison
from r1ray.rewards.answers.latex import cleaned, squeezed
from r1ray.rewards.answers.numbers import plain_of, same
from r1ray.rewards.answers.outline import read

_COMMON = (
    (r"\frac{1}{2}x", "x^2 + 1"), ("(x+1)^2", "x^2+2x+1"), ("[0, 1)", r"\{1, 2\}"), ("7+x", "x+7"), ("2x-3y=1", "x=5"),
    (r"2\sqrt{3}", r"\frac{\pi}{4}"), ("(1, 2)", "1, 3"), (r"\frac{x+1}{2}", r"\sqrt{x}-x_1"), (r"x \le 3", "x > 2"),
    (r"(-\infty, 1) \cup (2, \infty)", r"x < 1 \text{ or } x > 3"), (r"\sin(x)", r"\log_2 8"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\binom{5}{2}"),
)  # fmt: skip

_learned = False
"""Whether `warm_up` was called here, or in the process that this one was forked from."""


def equivalent(truth: str, answers: list[str]) -> float:
    """1.0 if every answer equals the truth, or all of them together do (`1` and `-1` for `1, -1`), else 0.0."""
    if all(equal(truth, a) for a in answers):
        return 1.0
    return float(len(answers) > 1 and equal(truth, ", ".join(answers)))


def equal(truth: str, answer: str) -> bool:
    """Whether two answers are the same in mathematics. What cannot be parsed equals only the same text."""
    one, other = cleaned(truth), cleaned(answer)
    if not one or not other:
        return False
    if squeezed(one) == squeezed(other):
        return True
    first, second = plain_of(one), plain_of(other)
    if first and second:
        return same(first, second)
    return Comparison(one, other).nodes(read(one), read(other))


def warm_up() -> None:
    """Load, and have the parser learn, what the first comparisons would: it learns the forms that it meets.

    A process that was forked from one which has learned them only touches the memory that a comparison writes to.
    """
    global _learned
    for truth, answer in _COMMON[:1] if _learned else _COMMON:
        equal(truth, answer)
    _learned = True
