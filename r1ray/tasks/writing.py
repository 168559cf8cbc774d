"""Write a short text about a topic, within a range of words and with one further demand that a program can check.

    Write about a lighthouse in 14 to 28 words. Use the word "quiet".

For pretrained models, which can write but ignore such demands. A range, not an upper bound: with an upper bound
alone, the surest text is the shortest.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from r1ray.errors import VerifierError
from r1ray.tasks.base import Problem, Split
from r1ray.tasks.seeded import Candidate, draw, span

_TOPICS = """
a lighthouse, a broken umbrella, an old map, a bakery at dawn, a lost glove, the first snow, a train journey,
a grandmother's kitchen, a chess game, a mountain path, a noisy neighbour, a pet turtle, a school play, an empty theatre,
a fishing village, a power cut, a secret garden, a street musician, a box of letters, a summer storm, a new bicycle,
a long queue, a night in the desert, an apple orchard, a stone bridge, a ferry, a quarrel between friends, a wedding,
a swimming lesson, a lazy cat, a busy airport, a paper kite, an orchestra, the smell of coffee, a foggy morning,
a camping trip, a rescue dog, a wooden toy, an abandoned house, a farmers' market, a birthday cake, a telescope,
a walk along the river, a volcano, a library card, a sleepy town, a pair of boots, a carpenter, a rainy holiday,
a violin lesson, a museum guard, a frozen lake, a taxi driver, a beehive, the last day of school, an island,
a difficult exam, a family photograph, a rooftop garden, a tailor, a glass of water, a marathon, a kind stranger,
a broken clock, a spider's web, a picnic, a crowded bus, a quiet library, a dentist, an astronaut, a sunflower field,
a hot air balloon, a night watchman, a football team, a message in a bottle, a snowman, a strange dream, a waterfall,
a country road, a pirate ship, a cup of tea, a hospital corridor, a vegetable stall, a circus, a thunderstorm, a puppet,
the moon over the sea, a bookshop, a nest of birds, a castle on a hill, a hungry fox, a piano, a postman, a campfire
"""
TOPICS = tuple(topic.strip() for topic in _TOPICS.replace("\n", " ").split(","))
WORDS = (
    *("always", "bright", "carefully", "children", "corner", "evening", "everyone", "forgotten", "friend", "gentle"),
    *("hidden", "little", "morning", "never", "patient", "quiet", "remember", "silver", "slowly", "suddenly"),
    *("together", "window", "wonder", "yesterday"),
)

Demand = Callable[[random.Random], tuple[str, dict[str, Any]]]
"""Draws a demand: its words in the prompt, and its record for the verifier `instructions`."""


def _keyword(rng: random.Random) -> tuple[str, dict[str, Any]]:
    word = rng.choice(WORDS)
    return f'Use the word "{word}".', {"id": "keywords:existence", "keywords": [word]}


def _no_comma(rng: random.Random) -> tuple[str, dict[str, Any]]:
    return "Do not use any commas.", {"id": "punctuation:no_comma"}


def _one_sentence(rng: random.Random) -> tuple[str, dict[str, Any]]:
    return "Use only one sentence.", {"id": "length_constraints:number_sentences", "num_sentences": 1}


_DEMANDS: tuple[Demand, ...] = (_keyword, _no_comma, _one_sentence)


class WritingTask:
    """Short texts to order. Problems have `meta["verifier"] = "instructions"`, and instructions as their `answer`.

    The topic is a problem's key: no topic of the training split occurs in the held-out split.
    """

    def __init__(self, words: Any = (10, 30), width: int = 14) -> None:
        """`words`: lowest and highest bound of the ranges. `width`: the difference between the ends of each range."""
        self._least, self._most = span("writing", "words", words, 1, 1000)
        self._width, _ = span("writing", "width", width, 0, self._most - self._least)

    def problem(self, index: int, split: Split, seed: int) -> Problem:
        """See SyntheticTask."""
        return draw("writing", index, split, seed, self._make)

    def _make(self, rng: random.Random) -> Candidate:
        topic, demand = rng.choice(TOPICS), rng.choice(_DEMANDS)
        least = rng.randint(self._least, self._most - self._width)
        most = least + self._width
        text, record = demand(rng)
        length = {"id": "length_constraints:number_words"}
        instructions = [
            {**length, "relation": "at least", "num_words": least},
            {**length, "relation": "less than", "num_words": most + 1},
            record,
        ]
        return Candidate(
            key=topic,
            prompt=f"Write about {topic} in {least} to {most} words. {text}",
            answer={"instructions": instructions},
            meta={"verifier": "instructions"},
        )

    def check(self, answer: str, truth: Any) -> bool:
        """Always raises VerifierError: the verifier `instructions` judges texts."""
        raise VerifierError(
            "a problem of the task writing is judged by its instructions: use the verifier instructions"
        )
