"""From a row as a benchmark publishes it, and its number, to ours: id, prompt, answer.

Raises DataError, KeyError, TypeError or ValueError for a row that is not of the benchmark's form.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from typing import Any

from r1ray.errors import DataError
from r1ray.evaluation.benchmarks.base import BOXED, Row
from r1ray.evaluation.benchmarks.packed import unpacked

LETTERS = "ABCDEFGHIJ"


def problem(raw: Mapping[str, Any], number: int) -> Row:
    return {"id": str(number), "prompt": f"{raw['problem']}{BOXED}", "answer": str(raw["answer"])}


def gsm8k(raw: Mapping[str, Any], number: int) -> Row:
    _, mark, answer = str(raw["answer"]).rpartition("####")
    if not mark:
        raise DataError("the answer does not hold the mark '####'")
    return {"id": str(number), "prompt": f"{raw['question']}{BOXED}", "answer": answer.strip()}


def gpqa(raw: Mapping[str, Any], number: int) -> Row:
    """The right option comes first in the file: the order is shuffled, by a hash of the question: always the same."""
    question = str(raw["Question"]).strip()
    names = ["Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]
    random.Random(hashlib.blake2b(question.encode(), digest_size=8).digest()).shuffle(names)
    return {
        "id": str(number),
        **_lettered(question, [str(raw[n]).strip() for n in names], names.index("Correct Answer")),
    }


def mmlu(raw: Mapping[str, Any], number: int) -> Row:
    """The order stays: some options speak of others ("both A and B")."""
    lettered = _lettered(str(raw["question"]), [str(c) for c in raw["choices"]], int(raw["answer"]))
    return {"id": str(number), "domain": str(raw["subject"]), **lettered}


def _lettered(question: str, options: list[str], right: int) -> Row:
    if not 0 <= right < len(options) <= len(LETTERS):
        raise DataError(f"there are {len(options)} options, and the right one is number {right}")
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    prompt = f"{question}\n\n{listed}\n\nEnd with the letter of the right option within \\boxed{{}}."
    return {"prompt": prompt, "answer": {"answer": LETTERS[right], "choices": options}}


def humaneval(raw: Mapping[str, Any], number: int) -> Row:
    ask = "Complete this Python function. Answer with the whole function in one fenced block."
    prompt = f"{ask}\n\n```python\n{raw['prompt']}```"
    answer = {"entry_point": raw["entry_point"], "test": raw["test"], "prompt": raw["prompt"]}
    return {"id": str(raw["task_id"]), "prompt": prompt, "answer": answer}


def mbpp(raw: Mapping[str, Any], number: int) -> Row:
    tests = [str(test) for test in raw["test_list"]]
    shown = "\n".join(tests)
    prompt = f"{raw['text']}\nAnswer with Python code in one fenced block. It must pass:\n\n```python\n{shown}\n```"
    answer = {"asserts": tests, "setup": str(raw["test_setup_code"])}
    return {"id": str(raw["task_id"]), "prompt": prompt, "answer": answer}


def livecodebench(raw: Mapping[str, Any], number: int) -> Row:
    try:
        name = json.loads(str(raw["metadata"] or "{}")).get("func_name")
    except (ValueError, AttributeError) as e:
        raise DataError(f"the metadata cannot be read: {e}") from e
    cases = [*unpacked(str(raw["public_test_cases"])), *unpacked(str(raw["private_test_cases"]))]
    tests = [{"input": case["input"], "output": case["output"]} for case in cases]
    ask = "Answer with a whole Python program in one fenced block; it reads standard input and writes standard output."
    answer: Any = tests
    if name:
        ask = f"Answer with Python code in one fenced block that begins with\n\n```python\n{raw['starter_code']}\n```"
        answer = {"function": name, "tests": tests}
    return {"id": str(raw["question_id"]), "prompt": f"{raw['question_content']}\n\n{ask}", "answer": answer}


def ifeval(raw: Mapping[str, Any], number: int) -> Row:
    given = list(zip(raw["instruction_id_list"], raw["kwargs"], strict=True))
    instructions = [
        {"id": str(name), **{k: v for k, v in (kwargs or {}).items() if v is not None}} for name, kwargs in given
    ]
    return {"id": str(raw["key"]), "prompt": str(raw["prompt"]), "answer": {"instructions": instructions}}
