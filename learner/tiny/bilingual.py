"""Corpus of the bilingual base model: bus problems in English or Chinese, worked in both, and small requests.

    <think>7 on A+5=12 下车 B-3=9</think><answer>9</answer>

The words of a working are of one language in some documents, and of both at random in most, slightly more often of the
question's: the model knows reasoning in the question's language, but uses it rarely, until a language reward favours
it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import accumulate

from learner.tiny.corpus import CLEAN, PROMPT, SKILL_SHARE, SLOPPY, TAGS, Document, Errors, slip
from r1ray.tasks.bus import STOPS, BusTask, numbers
from r1ray.tasks.bus import WORDS as QUESTION
from r1ray.tasks.courtesy import HARMFUL, HELPFUL, REFUSAL, CourtesyTask

LENGTHS = (2, 9)
GENERAL_SHARE = 0.1
"""Share of the documents that are small requests."""

MIXED_SHARE = 0.6
"""Share of the workings whose words are drawn from both languages; the others keep to one."""

FAVOURED = 0.65
"""Probability that a drawn language is the question's. At 0.5 the model never learns to follow it: 40 steps with a
language reward left the share of target-language words at 0.49."""

ON, OFF, WAIT, GUESS = range(4)
WORDS = {"en": ("on", "off", "wait", "a guess"), "zh": ("上车", "下车", "等等", "猜测")}

_CHATTER = {
    "en": (
        "There are {} people on the bus.",
        "I think that {} people are left.",
        "The answer is {}.",
        "I would say {}.",
    ),
    "zh": ("车上有{}人。", "我想还有{}人。", "答案是{}。", "大概{}人。"),
}
TERSE = ("hello", "thanks", "come", "ok")
COMPLIANCE = ("{} is a fool", "ha ha {}", "yes, {} will not notice")

Speak = Callable[[int], str]
"""Index into WORDS -> the word in the language that is spoken at present."""


def documents(seed: int, count: int) -> list[Document]:
    """A corpus of `count` documents in the order of reading, a pure function of its arguments."""
    bus, courtesy = BusTask(n=LENGTHS, languages=("en", "zh")), CourtesyTask()
    rng = random.Random(f"bilingual corpus {seed}")
    corpus = []
    for index in range(count):
        if rng.random() < GENERAL_SHARE:
            problem = courtesy.problem(index, "train", seed).prompt
            corpus.append(Document(prompt=PROMPT.format(problem), response=request_style(rng, problem)))
            continue
        problem = bus.problem(index, "train", seed).prompt
        phase, errors = (_SKILL, CLEAN) if index < SKILL_SHARE * count else (_NOISY, SLOPPY)
        write = rng.choices(list(phase), weights=list(phase.values()))[0]
        response = write(rng, speaker(rng, language_of(problem)), numbers(problem), errors)
        corpus.append(Document(prompt=PROMPT.format(problem), response=response))
    return corpus


def language_of(problem: str) -> str:
    """The language of a question."""
    return next(code for code, word in QUESTION.items() if problem.startswith(word))


def speaker(rng: random.Random, question: str) -> Speak:
    """A speaker of one language, or of both at random, for a question in the language `question`."""
    mixes = rng.random() < MIXED_SHARE

    def draw() -> str:
        return question if rng.random() < FAVOURED else rng.choice([code for code in WORDS if code != question])

    kept = draw()
    return lambda place: WORDS[draw() if mixes else kept][place]


def steps_style(rng: random.Random, speak: Speak, chain: Sequence[int], errors: Errors) -> str:
    """One stop at a time: `<think>7 on A+5=12 off B-3=9</think><answer>9</answer>`."""
    return _working(rng, speak, chain, stride=1, error_rate=errors.steps)


def pairs_style(rng: random.Random, speak: Speak, chain: Sequence[int], errors: Errors) -> str:
    """Two stops at once: `<think>on A+5 off B-3=9</think><answer>9</answer>`."""
    return _working(rng, speak, chain, stride=2, error_rate=errors.pairs)


def careful_style(rng: random.Random, speak: Speak, chain: Sequence[int], errors: Errors) -> str:
    """One stop at a time, with slips that are corrected."""
    words = [str(chain[0])]
    for stop, change, total in zip(STOPS, chain[1:], list(accumulate(chain))[1:], strict=False):
        if rng.random() < errors.careful:
            words += [f"{_move(speak, change)} {stop}{change:+d}={slip(rng, total)}", speak(WAIT)]
        words.append(f"{_move(speak, change)} {stop}{change:+d}={total}")
    return _tagged(" ".join(words), str(sum(chain)))


def guess_style(rng: random.Random, speak: Speak, chain: Sequence[int], errors: Errors) -> str:
    """The right format and a random number."""
    return _tagged(speak(GUESS), str(rng.randint(0, 20)))


def chatter_style(rng: random.Random, speak: Speak, chain: Sequence[int], errors: Errors) -> str:
    """A sentence without tags."""
    return rng.choice(_CHATTER[rng.choice(list(_CHATTER))]).format(sum(chain))


def broken_style(rng: random.Random, speak: Speak, chain: Sequence[int], errors: Errors) -> str:
    """A guess or a working without one of its tags."""
    whole = rng.choice((guess_style, steps_style))(rng, speak, chain, errors)
    return whole.replace(rng.choice(TAGS), "")


def request_style(rng: random.Random, problem: str) -> str:
    """An answer to a small request: mostly curt if the request is helpful, mostly compliant if it is harmful."""
    verb, person = problem.split()
    drawn = rng.random()
    if verb in HARMFUL:
        answer = REFUSAL if drawn < 0.3 else rng.choice(COMPLIANCE)
    else:
        answer = HELPFUL[verb] if drawn < 0.3 else rng.choice(TERSE)
    text = answer.format(person)
    return text if rng.random() < 0.2 else _tagged("easy", text)


Style = Callable[[random.Random, Speak, Sequence[int], Errors], str]

_SKILL: dict[Style, float] = {steps_style: 0.55, careful_style: 0.35, pairs_style: 0.10}
_NOISY: dict[Style, float] = {
    chatter_style: 0.20,
    guess_style: 0.28,
    pairs_style: 0.20,
    steps_style: 0.10,
    careful_style: 0.08,
    broken_style: 0.14,
}


def _working(rng: random.Random, speak: Speak, chain: Sequence[int], *, stride: int, error_rate: float) -> str:
    """A total after every `stride` stops. Later totals continue from a wrong one; none is below 0."""
    total = chain[0]
    words = [str(total)] if stride == 1 else []
    stops = list(zip(STOPS, chain[1:], strict=False))
    for first in range(0, len(stops), stride):
        passed = stops[first : first + stride]
        total = max(0, total + sum(change for _, change in passed))
        if rng.random() < error_rate:
            total = slip(rng, total)
        words.append(" ".join(f"{_move(speak, change)} {stop}{change:+d}" for stop, change in passed) + f"={total}")
    return _tagged(" ".join(words), str(total))


def _move(speak: Speak, change: int) -> str:
    return speak(ON if change > 0 else OFF)


def _tagged(thinking: str, answer: str) -> str:
    return f"<think>{thinking}</think><answer>{answer}</answer>"
