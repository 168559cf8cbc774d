"""Self-corrections, reflective words and languages in responses."""

from __future__ import annotations

import pytest

from r1ray.report.texts import corrections, find_correction, text_stats
from r1ray.sampling.store import SampleRow
from r1ray.util.responses import ReflectiveWords

WORDS = ReflectiveWords()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<think>7+5=11, wait, 7+5=12</think><answer>12</answer>", ("11", "12")),
        ("<think>7 A+5: 11, wait, let me check. 7+5=12\nB-3: 9</think><answer>9</answer>", ("11", "12")),
        ("<think>That gives 1,000. However, it is 1,001</think> so \\boxed{1001}", ("1000", "1001")),
        ("<think>it is 12. wait, 12 it is</think><answer>12</answer>", None),  # confirms
        ("<think>it is 11. wait, 11 it is</think><answer>12</answer>", None),  # the number does not change
        ("<think>12, wait, 13, no: 12</think><answer>12</answer>", None),  # it was right before
        ("<think>7+5=12</think><answer>12</answer>", None),
        ("<think>11 awaits 12</think><answer>12</answer>", None),
        ("", None),
    ],
)
def test_a_correction_replaces_a_number_and_ends_right(text, wanted):
    found = find_correction(text, True, WORDS)
    assert (None if found is None else (found.before, found.after)) == wanted
    assert find_correction(text, False, WORDS) is None


def test_the_first_corrections_at_most_one_per_prompt():
    text = "<think>11 wait 12</think><answer>12</answer>"
    rows = [
        {"step": i, "text": text, "prompt_id": prompt, "parts": {"accuracy/bus": right}}
        for i, (prompt, right) in enumerate([("a", 0.0), ("a", 1.0), ("a", 1.0), ("b", 1.0), ("c", 1.0)])
    ]
    assert [row["step"] for row, _ in corrections(rows, WORDS, 2)] == [1, 3]


def test_text_stats_of_a_worked_example():
    def sample(thinking: str, language: str | None, question: str = "12 + 5") -> SampleRow:
        return SampleRow(
            source="bus",
            prompt_id="p",
            index=0,
            sample=0,
            messages=({"role": "user", "content": question},),
            answer="17",
            meta={"target_language": language} if language else {},
            response=f"<think>{thinking}</think><answer>17</answer>",
            tokens=1,
            finish_reason="stop",
            reward=1.0,
            parts={"accuracy": 1.0},
            error=None,
            answer_text="17",
        )

    rows = [
        sample("the people are on the bus", "en"),
        sample("the people 上车上车上车上车上车", "en"),  # two words of five
        sample("12+5=16 wait 12+5=17", "en"),
        sample("12+5=17", "en"),  # no words
        sample("they go", None),  # a question without words has no language
    ]
    found = text_stats(rows, WORDS)
    assert found.samples == 5
    assert found.target == pytest.approx((1 + 2 / (2 + 10 * 0.6) + 1) / 3)
    assert found.mixed == pytest.approx(1 / 3)
    assert (found.reflective, found.corrected) == (0.2, 0.2)
    empty = text_stats([], WORDS)
    assert (empty.samples, empty.target, empty.reflective) == (0, None, None)
