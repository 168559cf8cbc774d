"""Corpus of the embedded base model: bus problems, answered in the styles that a pretrained model would know.

    skill phase    correct workings, so that the arithmetic is learned
    noisy phase    mostly guesses, chatter and broken tags, so that the arithmetic is known and rarely shown

This leaves reinforcement learning a real task: to find the style that is right and to sharpen it. Problems of the
held-out split never occur. Responses are without the end-of-text token, which the tokenizer adds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from r1ray.tasks.bus import STOPS, BusTask, numbers

PROMPT = "User: {}\nAssistant:"
"""A problem as a prompt, equal to that of the template `plain`; a test compares the two."""

LENGTHS = (2, 9)
"""Numbers in a problem of the corpus."""

SKILL_SHARE = 0.65
"""Share of the documents that belongs to the skill phase, which comes first."""

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_CHATTER = (
    "There are {} people on the bus.",
    "I think that {} people are left.",
    "It must be {}.",
    "Perhaps it is {} or so.",
    "The answer is {}.",
    "I would say {}.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A problem and one answer to it; only the response is learned."""

    prompt: str
    response: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Probability that a written total is wrong, by style."""

    pairs: float
    steps: float
    careful: float  # each is followed by its correction


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """The words of the styles. `bilingual` has another one."""

    move: Callable[[str, int], str]  # how many people get on (below 0: off) at a stop
    wait: Callable[[], str]  # before the correction of a slip
    guess: Callable[[], str]  # the thinking of a guess
    chatter: Callable[[random.Random], str]  # a sentence with a slot for the answer


def plain_move(stop: str, change: int) -> str:
    """`A+5`: five people get on at the stop A."""
    return f"{stop}{change:+d}"


PLAIN = Wording(move=plain_move, wait=lambda: "wait", guess=lambda: "a guess", chatter=lambda rng: rng.choice(_CHATTER))
CLEAN = Errors(pairs=0.0, steps=0.0, careful=0.12)
SLOPPY = Errors(pairs=0.10, steps=0.02, careful=0.12)


def documents(seed: int, count: int) -> list[Document]:
    """A corpus of `count` documents in the order of reading, a pure function of its arguments."""
    task = BusTask(n=LENGTHS)
    rng = random.Random(f"bus corpus {seed}")
    corpus = []
    for index in range(count):
        problem = task.problem(index, "train", seed).prompt
        write, errors = draw_style(rng, index, count)
        corpus.append(Document(prompt=PROMPT.format(problem), response=write(rng, numbers(problem), errors, PLAIN)))
    return corpus


def draw_style(rng: random.Random, index: int, count: int) -> tuple[Style, Errors]:
    """The style of document `index` of `count`, and how often it errs."""
    weights, errors = (_SKILL, CLEAN) if index < SKILL_SHARE * count else (_NOISY, SLOPPY)
    return rng.choices(list(weights), weights=list(weights.values()))[0], errors


def steps_style(rng: random.Random, chain: Sequence[int], errors: Errors, wording: Wording) -> str:
    """One stop at a time: `<think>7 A+5=12 B-3=9</think><answer>9</answer>`."""
    return _working(rng, chain, wording, stride=1, error_rate=errors.steps)


def pairs_style(rng: random.Random, chain: Sequence[int], errors: Errors, wording: Wording) -> str:
    """Two stops at a time, shorter and harder: `<think>A+5 B-3=9 C+8=17</think><answer>17</answer>`."""
    return _working(rng, chain, wording, stride=2, error_rate=errors.pairs)


def careful_style(rng: random.Random, chain: Sequence[int], errors: Errors, wording: Wording) -> str:
    """One stop at a time, with slips that are corrected: `<think>7 A+5=13 wait A+5=12 B-3=9</think>...`."""
    words = [str(chain[0])]
    for stop, change, total in zip(STOPS, chain[1:], list(accumulate(chain))[1:], strict=False):
        if rng.random() < errors.careful:
            words += [f"{wording.move(stop, change)}={_slip(rng, total)}", wording.wait()]
        words.append(f"{wording.move(stop, change)}={total}")
    return tagged(" ".join(words), sum(chain))


def guess_style(rng: random.Random, chain: Sequence[int], errors: Errors, wording: Wording) -> str:
    """The right format and a random number."""
    return tagged(wording.guess(), rng.randint(0, 20))


def chatter_style(rng: random.Random, chain: Sequence[int], errors: Errors, wording: Wording) -> str:
    """A sentence without tags, like most of the web."""
    return wording.chatter(rng).format(sum(chain))


def broken_style(rng: random.Random, chain: Sequence[int], errors: Errors, wording: Wording) -> str:
    """A guess or a working without one of its tags."""
    whole = rng.choice((guess_style, steps_style))(rng, chain, errors, wording)
    return whole.replace(rng.choice(TAGS), "")


Style = Callable[[random.Random, Sequence[int], Errors, Wording], str]

_SKILL: dict[Style, float] = {steps_style: 0.55, careful_style: 0.35, pairs_style: 0.10}
_NOISY: dict[Style, float] = {
    chatter_style: 0.20,
    guess_style: 0.28,
    pairs_style: 0.20,
    steps_style: 0.10,
    careful_style: 0.08,
    broken_style: 0.14,
}


def _working(rng: random.Random, chain: Sequence[int], wording: Wording, *, stride: int, error_rate: float) -> str:
    """A total after every `stride` stops. Later totals continue from a wrong one; none is below 0."""
    total = chain[0]
    words = [str(total)] if stride == 1 else []
    stops = list(zip(STOPS, chain[1:], strict=False))
    for first in range(0, len(stops), stride):
        passed = stops[first : first + stride]
        total = max(0, total + sum(change for _, change in passed))
        if rng.random() < error_rate:
            total = _slip(rng, total)
        words.append(" ".join(wording.move(stop, change) for stop, change in passed) + f"={total}")
    return tagged(" ".join(words), total)


def _slip(rng: random.Random, total: int) -> int:
    """A number close to the right one."""
    return rng.choice([t for t in range(total - 3, total + 4) if t >= 0 and t != total])


def tagged(thinking: str, answer: int | str) -> str:
    """A response with the tags of the prompt template."""
    return f"<think>{thinking}</think><answer>{answer}</answer>"
