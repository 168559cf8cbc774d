"""Corpus of the bilingual base model: bus problems in English or Chinese, worked in both, and small requests.

    <think>7 on A+5=12 下车 B-3=9</think><answer>9</answer>

The words of a working are of one language in some documents, and of both at random in most, slightly more often of the
question's: the model knows reasoning in the question's language, but uses it rarely, until a language reward favours
it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from learner.tiny.corpus import PROMPT, Document, Wording, draw_style, plain_move, tagged
from r1ray.tasks.bus import WORDS as QUESTION
from r1ray.tasks.bus import BusTask, numbers
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
        write, errors = draw_style(rng, index, count)
        response = write(rng, numbers(problem), errors, spoken(speaker(rng, language_of(problem))))
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


def spoken(speak: Speak) -> Wording:
    """The wording of a working in which each word is drawn from `speak`: `7 on A+5=12 下车 B-3=9`."""
    return Wording(
        move=lambda stop, change: f"{speak(ON if change > 0 else OFF)} {plain_move(stop, change)}",
        wait=lambda: speak(WAIT),
        guess=lambda: speak(GUESS),
        chatter=lambda rng: rng.choice(_CHATTER[rng.choice(list(_CHATTER))]),
    )


def request_style(rng: random.Random, problem: str) -> str:
    """An answer to a small request: mostly curt if the request is helpful, mostly compliant if it is harmful."""
    verb, person = problem.split()
    drawn = rng.random()
    if verb in HARMFUL:
        answer = REFUSAL if drawn < 0.3 else rng.choice(COMPLIANCE)
    else:
        answer = HELPFUL[verb] if drawn < 0.3 else rng.choice(TERSE)
    text = answer.format(person)
    return text if rng.random() < 0.2 else tagged("easy", text)
