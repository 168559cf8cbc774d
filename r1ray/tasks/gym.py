"""Tasks of the package reasoning-gym, named `reasoning_gym/<its name>`.

    (seed, split, index) --hash--> number --reasoning-gym--> question    truth = {item, place, digest, answer}
    answer, truth        --the same number--> the same item --its own checker--> score in [0, 1]

The truth names the item, and the checker makes it again: items hold Python objects that do not
travel. So problems must be a function of their number in every process, which REFUSED ensures.
Checkers get untrusted text and may run for long, so TaskVerifier calls them in a worker process.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import fields
from functools import lru_cache
from importlib import import_module
from typing import Any

from r1ray.errors import ConfigError, DataError
from r1ray.tasks.base import Problem, Split
from r1ray.tasks.seeded import Candidate, draw
from r1ray.util.hints import suggestion

PREFIX = "reasoning_gym/"
_SIZE = 16
"""Items of a data set of theirs; some prepare all of them when they are made."""

_BY_HASH = "its problems depend on Python's hash seed, so that a resumed run would get others"
REFUSED = {
    "codeio": "its problems depend on random numbers without a seed",
    "composite": "it mixes other tasks; give each of them a source of its own",
    "game_of_life_halting": "its checker accepts every answer",
    "isomorphic_strings": _BY_HASH,
    "knight_swap": _BY_HASH,
    "list_functions": _BY_HASH,
    "polynomial_multiplication": _BY_HASH,
    "ransom_note": _BY_HASH,
}
"""Task -> why r1ray does not offer it (reasoning-gym 0.1.25)."""

_ARITHMETIC = r"(?:\d+(?:\.\d+)?|[\s()+/-]|\*(?!\s*\*))*"  # without powers, which grow without bound
_FUNCTIONS = "exp|log|ln|sqrt|pi|sec|csc|cot|(?:arc|a)?(?:sin|cos|tan)h?"
_FORMULA = rf"(?:\d+(?:\.\d+)?|[\s()+*/^-]|(?:{_FUNCTIONS})(?![A-Za-z])|[A-Za-z](?![A-Za-z]))*"
_GRAMMAR = {
    "binary_matrix": r"[\d\s,\[\]-]*",
    "countdown": _ARITHMETIC,
    "intermediate_integration": _FORMULA,
    "n_queens": r"[_Q\s,\[\]'\"]*",
    "puzzle24": _ARITHMETIC,
    "simple_integration": _FORMULA,
    "spiral_matrix": r"[\d\s,\[\]-]*",
    "string_insertion": r"[A-Z\s,\[\]'\"]*",
}
"""Task whose checker evaluates the answer as Python -> what an answer may consist of.

No grammar allows a dot behind a name, and none with brackets for a call has names of two letters but functions of
mathematics. So an answer reaches no attribute and calls nothing else.
"""
_MAX_ANSWER = 1 << 14
"""Longer answers are wrong."""


class GymTask:
    """One task of reasoning-gym with its parameters. See SyntheticTask."""

    def __init__(self, name: str, params: dict[str, Any]) -> None:
        """`name` without the prefix; `params`: fields of its configuration.

        Raises ConfigError if the package is missing, for a task that it lacks or that is REFUSED,
        and for parameters that the task refuses.
        """
        if name in REFUSED:
            raise ConfigError(f"the task {PREFIX}{name} is not offered: {REFUSED[name]}")
        datasets = _datasets()
        if name not in datasets:
            raise ConfigError(f"reasoning-gym has no task {name!r}{suggestion(name, datasets)}")
        accepted = sorted({f.name for f in fields(datasets[name][1])} - {"seed", "size"})
        for key in params:
            if key not in accepted:
                raise ConfigError(
                    f"the task {PREFIX}{name} has no parameter {key!r}{suggestion(key, accepted)}; "
                    f"its parameters are {', '.join(accepted) or 'none'}"
                )
        self._name = name
        self._params = dict(params)
        try:
            self._data(0)
        except (AssertionError, TypeError, ValueError) as e:
            raise ConfigError(f"the task {PREFIX}{name} refuses its parameters {params}: {e!r}") from e
        self._item = lru_cache(maxsize=8)(self._make)  # completions of a group are checked one after another

    def problem(self, index: int, split: Split, seed: int) -> Problem:
        """See SyntheticTask. The question decides the split."""
        return draw(PREFIX + self._name, index, split, seed, self._candidate)

    def check(self, answer: str, truth: Any) -> float:
        """See SyntheticTask. The score of the task's own checker; 0 for an answer that it cannot read.

        Raises DataError if the installed package makes another problem than the prompt's.
        """
        data, entry = self._item(int(truth["item"]), int(truth["place"]))
        if _digest(entry["question"]) != truth["question"]:
            raise DataError(
                f"{PREFIX}{self._name}: the installed reasoning-gym makes another problem than the prompt's; "
                "score with the version that made the prompts"
            )
        grammar = _GRAMMAR.get(self._name)
        if len(answer) > _MAX_ANSWER or (grammar and not re.fullmatch(grammar, answer)):
            return 0.0
        try:
            score = float(data.score_answer(answer, entry))
        except Exception:  # checkers raise anything for text that they do not expect: the answer is wrong
            return 0.0
        return min(score, 1.0) if score > 0 else 0.0

    def _candidate(self, rng: random.Random) -> Candidate:
        item, place = rng.getrandbits(31), rng.randrange(_SIZE)
        _, entry = self._make(item, place)
        question = str(entry["question"])
        gold = entry["answer"]
        truth = {
            "item": item,
            "place": place,
            "question": _digest(question),
            "answer": None if gold is None else str(gold),
        }
        return Candidate(key=question, prompt=question, answer=truth)

    def _data(self, item: int) -> Any:
        dataset, config = _datasets()[self._name]
        return dataset(config=config(seed=item, size=_SIZE, **self._params))

    def _make(self, item: int, place: int) -> tuple[Any, dict[str, Any]]:
        data = self._data(item)
        return data, data[place]


def _datasets() -> dict[str, tuple[Any, Any]]:
    try:
        import_module("reasoning_gym")
    except ModuleNotFoundError as e:
        raise ConfigError(
            f"sources {PREFIX}... need the package reasoning-gym ({e}): pip install 'r1ray[reasoning-gym]'"
        ) from e
    found: dict[str, tuple[Any, Any]] = import_module("reasoning_gym.factory").DATASETS
    return found


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
