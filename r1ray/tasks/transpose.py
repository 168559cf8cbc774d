"""Write a Bash script that transposes a matrix given as a string."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from r1ray.errors import ConfigError, VerifierError
from r1ray.tasks.base import Problem, Split
from r1ray.tasks.seeded import Candidate, draw

_ROW_MARKS = (",", ";", "|", "/", " ")
_CELL_MARKS = (",", ":", "-", " ", "_")
_BRACKETS = ("[]", "()", "{}", "<>")


class TransposeTask:
    """Matrices in a different notation in each problem. The answer is a script, judged by running it.

    Problems have `meta["verifier"] = "code"`, and their `answer` holds tests for the code verifier.
    """

    def __init__(self, tests: int = 5, max_side: int = 4) -> None:
        """`tests`: number of matrices to run the script on. `max_side`: maximum number of rows and of columns."""
        if not (isinstance(tests, int) and isinstance(max_side, int) and 1 <= tests <= 50 and 2 <= max_side <= 20):
            limits = f"tests = {tests!r}, max_side = {max_side!r}"
            raise ConfigError(f"the task transpose: expected 1 to 50 tests and sides of 2 to 20, got {limits}")
        self._tests = tests
        self._max_side = max_side

    def problem(self, index: int, split: Split, seed: int) -> Problem:
        """See SyntheticTask."""
        return replace(draw("transpose", index, split, seed, self._make), meta={"verifier": "code"})

    def _make(self, rng: random.Random) -> Candidate:
        notation = rng.choice(_ROW_MARKS), rng.choice(_CELL_MARKS), rng.choice(_BRACKETS)
        example = self._matrix(rng)
        return Candidate(
            key=str(notation),
            prompt="Write a Bash script that reads one line from standard input, a matrix written row by row, and "
            f'prints the transposed matrix in the same notation. For "{_write(example, *notation)}" it prints '
            f'"{_write(_transposed(example), *notation)}", without the quotation marks. Answer with the script in a '
            "fenced code block.",
            answer={"language": "bash", "tests": [self._test(rng, notation) for _ in range(self._tests)]},
        )

    def _test(self, rng: random.Random, notation: tuple[str, str, str]) -> dict[str, str]:
        matrix = self._matrix(rng)
        return {
            "stdin": _write(matrix, *notation) + "\n",
            "stdout": _write(_transposed(matrix), *notation) + "\n",
        }

    def _matrix(self, rng: random.Random) -> list[list[int]]:
        rows, columns = rng.randint(1, self._max_side), rng.randint(2, self._max_side)
        return [[rng.randint(0, 99) for _ in range(columns)] for _ in range(rows)]

    def check(self, answer: str, truth: Any) -> bool:
        """Always raises VerifierError: the code verifier judges scripts, in the sandbox."""
        raise VerifierError("a problem of the task transpose is judged by running its script: use the code verifier")


def _transposed(matrix: list[list[int]]) -> list[list[int]]:
    return [list(column) for column in zip(*matrix, strict=True)]


def _write(matrix: list[list[int]], row_mark: str, cell_mark: str, brackets: str) -> str:
    return row_mark.join(brackets[0] + cell_mark.join(map(str, row)) + brackets[1] for row in matrix)
