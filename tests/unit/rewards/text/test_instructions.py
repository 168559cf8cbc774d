"""Instructions that a program can check: a text that keeps each and one that does not."""

from __future__ import annotations

from typing import Any

import pytest

from r1ray.errors import DataError
from r1ray.rewards.base import Sample
from r1ray.rewards.text.instructions import CHECKS, InstructionsVerifier

SENTENCES = "length_constraints:number_sentences"
FIRST_WORD = "length_constraints:nth_paragraph_first_word"
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["sea", "ship"]}, "Shipping by the SEA.", "A boat at sea."),
    ("keywords:existence", {"keywords": ["C++ (new)"]}, "in c++ (NEW)", "in C (new)"),
    ("keywords:forbidden_words", {"forbidden_words": ["sea"]}, "A season.", "At sea."),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, "relation": "at least"}, "sea, seasons", "sea"),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, "relation": "less than"}, "sea", "sea sea"),
    ("keywords:letter_frequency", {"letter": "a", "let_frequency": 3, "let_relation": "at least"}, "Banana", "Ban"),
    ("language:response_language", {"language": "de"}, "Das ist ein Haus und es ist schön.", "This is a house."),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "one two three", "one two"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "one two", "one two three"),
    (SENTENCES, {"num_sentences": 2, "relation": "at least"}, "One. Two!", "One, two."),
    (SENTENCES, {"num_sentences": 2, "relation": "at least"}, '"Is it dry?" (It is not.)', '"Is it dry?"'),
    (SENTENCES, {"num_sentences": 2, "relation": "at least"}, "**Go on.** _Now._", "**Go on now.**"),
    (SENTENCES, {"num_sentences": 3, "relation": "at least"}, "雨停了。天晴了！走吧？", "雨停了。天晴了！"),
    (
        SENTENCES,
        {"num_sentences": 2, "relation": "less than"},
        "Dr. J. Ott and Mr. Lee met",
        "Dr. Ott left. Mr. Lee met",
    ),
    (SENTENCES, {"num_sentences": 2, "relation": "less than"}, "1. tea\n2. milk", "Tea is hot.\nMilk is not"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one\n***\ntwo", "one\n\ntwo"),
    (
        FIRST_WORD,
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "First.\n\nThen more.",
        "Then.\n\nFirst.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] at [place]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye. P.S. Write.", "Bye."),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n* b", "* a\n* b\n* c"),
    ("detectable_format:constrained_response", {}, "My answer is no.", "No."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and *b*", "*a*"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\na\nSection 2\nb",
        "Section 1",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', '{"a": 1'),
    ("detectable_format:title", {}, "<<Title>>\ntext", "Title\ntext"),
    ("combination:two_responses", {}, "one\n******\ntwo", "one\n******\none"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "Say it. It.", "It."),
    ("startend:end_checker", {"end_phrase": "Any questions?"}, "So. Any Questions?", "Any questions? So."),
    ("startend:quotation", {}, '"all of it"', 'not "all" of it'),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "NO and YES",
        "NO and yes",
    ),
    ("change_case:english_capital", {}, "ALL OF IT", "All of it"),
    ("change_case:english_lowercase", {}, "all of it", "All of it"),
    ("punctuation:no_comma", {}, "one and two", "one, two"),
]


def judge(response: str, *instructions: dict[str, Any], **params: Any) -> float:
    return InstructionsVerifier(**params)(Sample(response=response, answer={"instructions": list(instructions)}))


@pytest.mark.parametrize(("name", "values", "keeps", "breaks"), CASES)
def test_each_instruction(name: str, values: dict[str, Any], keeps: str, breaks: str) -> None:
    assert judge(f"<think>hm, hm</think>{keeps}", {"id": name, **values}) == 1.0
    assert judge(f"<think>hm, hm</think>\n<answer>{keeps}</answer>", {"id": name, **values}) == 1.0
    assert judge(f"<think>{keeps}</think>{breaks}", {"id": name, **values}) == 0.0


def test_every_instruction_is_tried_here() -> None:
    assert {name for name, *_ in CASES} == set(CHECKS)


def test_an_unknown_language_is_a_fault_of_the_ground_truth() -> None:
    with pytest.raises(DataError, match="'fa': expected one of english"):
        judge("yes", {"id": "language:response_language", "language": "fa"})


def test_all_must_hold_and_partial_counts_them() -> None:
    both = ({"id": "punctuation:no_comma"}, {"id": "change_case:english_capital"})
    assert judge("YES", *both) == 1.0
    assert judge("yes", *both) == 0.0
    assert judge("yes", *both, partial=True) == 0.5


def test_no_answer_keeps_nothing() -> None:
    assert judge("<think>on and on", {"id": "punctuation:no_comma"}) == 0.0


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("42", "expected"),
        ({"instructions": []}, "expected"),
        ({"instructions": [{"id": "be:nice"}]}, "unknown instruction 'be:nice'"),
        ({"instructions": ["be:nice"]}, "an instruction of the ground truth"),
        ({"instructions": [{"id": "length_constraints:number_words"}]}, "missing or wrong value"),
        (
            {"instructions": [{"id": FIRST_WORD, "num_paragraphs": 2, "nth_paragraph": 1}]},
            "missing or wrong value.*first_word",
        ),
    ],
)
@pytest.mark.parametrize("response", ["text", ""])
def test_a_record_that_cannot_be_checked_is_an_error_and_no_zero(answer: Any, told: str, response: str) -> None:
    with pytest.raises(DataError, match=told):
        InstructionsVerifier()(Sample(response=response, answer=answer))


@pytest.mark.parametrize(
    "text", ["a" * (1 << 20), "[" * (1 << 20), "*" * (1 << 20), "<<" * (1 << 19), "\n- " * (1 << 18)]
)
def test_long_hostile_text_takes_no_time(text: str) -> None:
    every = [{"id": name, **values} for name, values, *_ in CASES]
    assert judge(text, *every) == 0.0
