"""Writing tasks: what the prompts ask is what the verifier `instructions` checks."""

from __future__ import annotations

import re

import pytest

from r1ray.errors import VerifierError
from r1ray.rewards.base import Sample
from r1ray.rewards.text.instructions import InstructionsVerifier
from r1ray.tasks.base import Problem, Split
from r1ray.tasks.writing import TOPICS, WORDS, WritingTask

N = 200


def problems(split: Split = "train", seed: int = 0) -> list[Problem]:
    task = WritingTask()
    return [task.problem(i, split, seed) for i in range(N)]


def asked(problem: Problem) -> tuple[str, int, int, str]:
    """Topic, least and most words, and the demand, as the prompt states them."""
    found = re.fullmatch(r"Write about (.+) in (\d+) to (\d+) words\. (.+)", problem.prompt)
    assert found
    return found[1], int(found[2]), int(found[3]), found[4]


def judged(problem: Problem, text: str) -> float:
    return InstructionsVerifier()(Sample(response=text, answer=problem.answer))


def obedient(problem: Problem, words: int) -> str:
    """One sentence without commas of so many words, with the keyword if there is one."""
    keyword = re.search(r'"(\w+)"', problem.prompt)
    return " ".join(["word"] * (words - 1) + [keyword[1] if keyword else "word"]) + "."


def test_texts_within_the_range_are_right_and_shorter_or_longer_ones_wrong() -> None:
    for problem in problems():
        _, least, most, _ = asked(problem)
        verdicts = [judged(problem, obedient(problem, n)) for n in (least - 1, least, most, most + 1)]
        assert verdicts == [0.0, 1.0, 1.0, 0.0], problem.prompt


def test_each_demand_is_checked() -> None:
    seen = set()
    for problem in problems():
        _, least, _, demand = asked(problem)
        text = obedient(problem, least)
        broken = {
            "Do not use any commas.": text.replace("word", "word,", 1),
            "Use only one sentence.": text.replace("word", "word.", 1),
        }.get(demand, text.replace(demand.split('"')[-2] if '"' in demand else "", "word"))
        seen.add(demand.split('"')[0])
        assert judged(problem, broken) == 0.0, (problem.prompt, broken)
    assert len(seen) == 3


def test_no_topic_is_in_both_splits() -> None:
    train, heldout = ({asked(p)[0] for s in (0, 1) for p in problems(split, s)} for split in ("train", "heldout"))
    assert train.isdisjoint(heldout)
    assert len(heldout) >= 5
    assert train | heldout <= set(TOPICS)


def test_the_lists_have_no_duplicates() -> None:
    assert len(set(TOPICS)) == len(TOPICS)
    assert len(set(WORDS)) == len(WORDS)


def test_the_range_has_the_given_bounds_and_width() -> None:
    task = WritingTask(words=[20, 26], width=4)
    ranges = {asked(task.problem(i, "train", 0))[1:3] for i in range(N)}
    assert ranges == {(20, 24), (21, 25), (22, 26)}


def test_its_own_check_refuses() -> None:
    with pytest.raises(VerifierError, match="use the verifier instructions"):
        WritingTask().check("text", {})
