"""Samples for the tests of curation."""

from __future__ import annotations

from typing import Any

from r1ray.config.schema import CurationConfig
from r1ray.curation.candidate import Candidate
from r1ray.sampling.store import SampleRow

GOOD = "<think>The sum of 7 and 5 is wanted.\n\nThat makes 12.</think> <answer>12</answer>"


def sample(response: str = GOOD, **changes: Any) -> SampleRow:
    """A sample that every filter lets through, with changes."""
    fields: dict[str, Any] = {
        "source": "sums",
        "prompt_id": "sums/0",
        "index": 0,
        "sample": 0,
        "messages": ({"role": "user", "content": "What is the sum of 7 and 5?"},),
        "answer": "12",
        "meta": {},
        "response": response,
        "tokens": 20,
        "finish_reason": "stop",
        "reward": 1.0,
        "parts": {"accuracy": 1.0},
        "error": None,
        "answer_text": "12",
    }
    return SampleRow(**{**fields, **changes})


def candidate(response: str = GOOD, **changes: Any) -> Candidate:
    return Candidate.of(sample(response, **changes))


def prompts(count: int, samples: int = 1, source: str = "sums") -> list[SampleRow]:
    """`samples` samples of each of `count` prompts, all of them different."""
    rows = []
    for index in range(count):
        for number in range(samples):
            a, b = index + 2, 3 + number
            text = f"<think>Here {a} apples meet {b} pears, so I count {a}+{b}.</think> <answer>{a + b}</answer>"
            asked = ({"role": "user", "content": f"{a} apples and {b} pears"},)
            rows.append(
                sample(
                    text,
                    source=source,
                    prompt_id=f"{source}/{index}",
                    index=index,
                    sample=number,
                    tokens=30 + number,
                    answer=str(a + b),
                    messages=asked,
                )
            )
    return rows


def config(**changes: Any) -> CurationConfig:
    return CurationConfig(**changes)
