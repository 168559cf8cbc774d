"""A synthetic task of your own: spell a word backwards.

Use it by its import path as a source of prompts, and judge the responses by its own checker
(examples/own_task.yaml):

    data:
      train: [{name: reversal, path: "own_task:ReversalTask", params: {letters: 5}}]
    rewards: [{name: accuracy, params: {verifier: task}}]
"""

import random
import string
from typing import Any

from r1ray.errors import ConfigError
from r1ray.tasks.base import Problem, Split
from r1ray.tasks.seeded import Candidate, draw


class ReversalTask:
    """`Spell "qsuvz" backwards.`"""

    def __init__(self, letters: int = 5) -> None:
        """`letters`: the length of each word, 3 to 20."""
        if not 3 <= letters <= 20:
            raise ConfigError(f"the task reversal: letters = {letters}, expected 3 to 20")
        self._letters = letters

    def problem(self, index: int, split: Split, seed: int) -> Problem:
        """Make the problem at `index`. `draw` keeps the splits disjoint: it assigns each key to one of them."""
        return draw("reversal", index, split, seed, self._make)

    def _make(self, rng: random.Random) -> Candidate:
        word = "".join(rng.choices(string.ascii_lowercase, k=self._letters))
        return Candidate(key=word, prompt=f'Spell "{word}" backwards.', answer=word[::-1])

    def check(self, answer: str, truth: Any) -> bool:
        """Compare the extracted answer with the truth, without regard to case and quotation marks."""
        return answer.strip(" \"'.").lower() == truth
