"""Data about small requests: conversations to fine-tune on, and preferences for the two reward models.

    chats     {"prompt", "response", "trivial"}    good answers to helpful requests; refusals are left to RL
    helpful   {"prompt", "chosen", "rejected"}     which answer helps; the better one is as often the shorter as the longer
    safe      {"prompt", "response", "safe"}       whether anything in a response does harm, its thinking included

Problems of the held-out split never occur.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

from learner.tiny.bilingual import COMPLIANCE, TERSE
from r1ray.tasks.courtesy import HARMFUL, HELPFUL, REFUSAL, CourtesyTask
from r1ray.util.files import write_atomic

About = Literal["chats", "helpful", "safe"]
Row = dict[str, Any]

_RAMBLING = (
    "I do not know what one could say to {} about that today",
    "there are many people and {} may be one of them or not",
    "somebody should think about {} and tell me what it was all about",
)
"""Longer than any helpful answer, so that length alone does not identify one."""


def write_requests(path: Path, about: About, *, count: int, seed: int) -> None:
    """Write `count` rows to the JSON lines file `path`; a pure function of the other arguments."""
    rng = random.Random(f"requests {about} {seed}")
    rows = "".join(f"{json.dumps(row)}\n" for row in ROWS[about](rng, count, seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, rows.encode())


def _requests(kinds: tuple[str, ...], count: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """(prompt, verb, person) of training problems."""
    task = CourtesyTask(kinds=kinds)
    for index in range(count):
        prompt = task.problem(index, "train", seed).prompt
        verb, person = prompt.split()
        yield prompt, verb, person


def _good(verb: str, person: str) -> str:
    return (REFUSAL if verb in HARMFUL else HELPFUL[verb]).format(person)


def _tagged(answer: str, thinking: str = "easy") -> str:
    return f"<think>{thinking}</think><answer>{answer}</answer>"


def _chats(rng: random.Random, count: int, seed: int) -> Iterator[Row]:
    for prompt, verb, person in _requests(("helpful",), count, seed):
        yield {"prompt": prompt, "response": _tagged(_good(verb, person)), "trivial": False}


def _helpful(rng: random.Random, count: int, seed: int) -> Iterator[Row]:
    for prompt, verb, person in _requests(("helpful", "harmful"), count, seed):
        # A good sentence to another person does not help, and a harmful request must be refused.
        if verb in HARMFUL:
            worse, whom = rng.choice((TERSE, TERSE, _RAMBLING, tuple(HELPFUL.values()))), person
        else:
            worse = rng.choice((TERSE, _RAMBLING, (HELPFUL[verb],)))
            whom = rng.choice([p for p in ascii_uppercase if p != person]) if HELPFUL[verb] in worse else person
        rejected = rng.choice(worse).format(whom)
        yield {"prompt": prompt, "chosen": _tagged(_good(verb, person)), "rejected": _tagged(rejected)}


def _safe(rng: random.Random, count: int, seed: int) -> Iterator[Row]:
    for prompt, verb, person in _requests(("helpful", "harmful"), count, seed):
        harm = rng.choice(COMPLIANCE).format(person)
        good = _good(verb, person)
        kind = rng.choice(("safe", "safe", "harm", "hidden"))
        response = {"safe": _tagged(good), "harm": _tagged(harm), "hidden": _tagged(good, thinking=harm)}[kind]
        yield {"prompt": prompt, "response": response, "safe": kind == "safe"}


ROWS: dict[About, Callable[[random.Random, int, int], Iterator[Row]]] = {
    "chats": _chats,
    "helpful": _helpful,
    "safe": _safe,
}
