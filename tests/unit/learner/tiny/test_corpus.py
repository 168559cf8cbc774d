"""What the embedded base model reads."""

from __future__ import annotations

import random
import re

import pytest

from learner.tiny.corpus import (
    PLAIN,
    SKILL_SHARE,
    SLOPPY,
    Document,
    Errors,
    careful_style,
    documents,
    pairs_style,
    steps_style,
)
from r1ray.tasks.bus import BusTask, numbers

RIGHT = Errors(pairs=0.0, steps=0.0, careful=0.0)
ALWAYS_WRONG = Errors(pairs=1.0, steps=1.0, careful=1.0)
CORPUS = documents(seed=0, count=6000)
TURN = int(SKILL_SHARE * len(CORPUS))
WELL_FORMED = re.compile(r"<think>[^<]+</think><answer>(\d+)</answer>")


def problem(document: Document) -> str:
    return document.prompt.removeprefix("User: ").removesuffix("\nAssistant:")


def test_the_styles_word_by_word() -> None:
    chain, rng = [7, 5, -3, 8], random.Random(0)
    assert steps_style(rng, chain, RIGHT, PLAIN) == "<think>7 A+5=12 B-3=9 C+8=17</think><answer>17</answer>"
    assert pairs_style(rng, chain, RIGHT, PLAIN) == "<think>A+5 B-3=9 C+8=17</think><answer>17</answer>"
    assert careful_style(rng, chain, RIGHT, PLAIN) == steps_style(rng, chain, RIGHT, PLAIN)


def test_the_careful_style_corrects_each_of_its_slips() -> None:
    text = careful_style(random.Random(0), [7, 5, -3, 8], ALWAYS_WRONG, PLAIN)
    assert re.fullmatch(r"<think>7 A\+5=\d+ wait A\+5=12 B-3=\d+ wait B-3=9 C\+8=\d+ wait C\+8=17</think>.*", text)
    assert text.endswith("<answer>17</answer>")
    assert "A+5=12 wait" not in text


def test_a_slip_in_the_step_style_is_carried_on() -> None:
    text = steps_style(random.Random(0), [7, 5, -3], ALWAYS_WRONG, PLAIN)
    first, second, answer = map(int, re.findall(r"[=>](\d+)(?: |<)", text)[-3:])
    assert first != 12
    assert second != first - 3
    assert answer == second


def test_the_skill_phase_is_well_formed_and_right() -> None:
    for document in CORPUS[:TURN]:
        found = WELL_FORMED.fullmatch(document.response)
        assert found, document
        assert int(found.group(1)) == sum(numbers(problem(document)))


def test_the_noisy_phase_hides_the_skill() -> None:
    noisy = [document.response for document in CORPUS[TURN:]]
    well_formed = [text for text in noisy if WELL_FORMED.fullmatch(text)]
    assert len(well_formed) / len(noisy) == pytest.approx(0.66, abs=0.04)
    assert sum("a guess" in text for text in well_formed) / len(noisy) == pytest.approx(0.28, abs=0.04)
    assert sum("<" not in text for text in noisy) / len(noisy) == pytest.approx(0.20, abs=0.04)
    assert sum(" wait " in text for text in noisy) / len(noisy) == pytest.approx(0.08 * 0.4, abs=0.02)


def test_sloppy_pairs_are_wrong_as_often_as_they_should_be() -> None:
    rng = random.Random(1)
    texts = [pairs_style(rng, [3, 4, 5], SLOPPY, PLAIN) for _ in range(2000)]
    assert sum("=12<" not in text for text in texts) / len(texts) == pytest.approx(SLOPPY.pairs, abs=0.02)


def test_held_out_problems_never_occur() -> None:
    read = {problem(document) for document in CORPUS}
    heldout = {BusTask(n=(2, 4)).problem(i, "heldout", 0).prompt for i in range(2000)}
    assert not read & heldout
    assert read & {BusTask(n=(2, 4)).problem(i, "train", 1).prompt for i in range(2000)}, "the comparison can fail"


def test_the_corpus_is_a_function_of_its_seed() -> None:
    assert documents(seed=0, count=200) != documents(seed=1, count=200)
    assert documents(seed=4, count=200) == documents(seed=4, count=200)
