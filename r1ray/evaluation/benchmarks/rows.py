"""Convert published rows of benchmarks to id, prompt and answer.

All functions take a row and its number, and raise DataError, KeyError, TypeError or ValueError for a
row without the form of the benchmark.
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
    """AIME and MATH-500: a problem and its final answer."""
    return {"id": str(number), "prompt": f"{raw['problem']}{BOXED}", "answer": str(raw["answer"])}


def gsm8k(raw: Mapping[str, Any], number: int) -> Row:
    """GSM8K: the final answer follows `####`."""
    _, mark, answer = str(raw["answer"]).rpartition("####")
    if not mark:
        raise DataError("the answer does not hold the mark '####'")
    return {"id": str(number), "prompt": f"{raw['question']}{BOXED}", "answer": answer.strip()}


def gpqa(raw: Mapping[str, Any], number: int) -> Row:
    """GPQA: the right option comes first in the file, so a hash of the question shuffles the options."""
    question = str(raw["Question"]).strip()
    names = ["Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]
    random.Random(hashlib.blake2b(question.encode(), digest_size=8).digest()).shuffle(names)
    return {
        "id": str(number),
        **_lettered(question, [str(raw[n]).strip() for n in names], names.index("Correct Answer")),
    }


def mmlu(raw: Mapping[str, Any], number: int) -> Row:
    """MMLU: the options keep their order, because some refer to others ("both A and B")."""
    lettered = _lettered(str(raw["question"]), [str(c) for c in raw["choices"]], int(raw["answer"]))
    return {"id": str(number), "domain": str(raw["subject"]), **lettered}


def _lettered(question: str, options: list[str], right: int) -> Row:
    if not 0 <= right < len(options) <= len(LETTERS):
        raise DataError(f"there are {len(options)} options, and the right one is number {right}")
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    prompt = f"{question}\n\n{listed}\n\nEnd with the letter of the right option within \\boxed{{}}."
    return {"prompt": prompt, "answer": {"answer": LETTERS[right], "choices": options}}


def humaneval(raw: Mapping[str, Any], number: int) -> Row:
    """HumanEval: complete a Python function, judged by its `check`."""
    ask = "Complete this Python function. Answer with the whole function in one fenced block."
    prompt = f"{ask}\n\n```python\n{raw['prompt']}```"
    answer = {"entry_point": raw["entry_point"], "test": raw["test"], "prompt": raw["prompt"]}
    return {"id": str(raw["task_id"]), "prompt": prompt, "answer": answer}


def mbpp(raw: Mapping[str, Any], number: int) -> Row:
    """MBPP: a short Python program, judged by the asserts in the prompt."""
    tests = [str(test) for test in raw["test_list"]]
    shown = "\n".join(tests)
    prompt = f"{raw['text']}\nAnswer with Python code in one fenced block. It must pass:\n\n```python\n{shown}\n```"
    answer = {"asserts": tests, "setup": str(raw["test_setup_code"])}
    return {"id": str(raw["task_id"]), "prompt": prompt, "answer": answer}


def livecodebench(raw: Mapping[str, Any], number: int) -> Row:
    """LiveCodeBench: a program or a function, judged by its public and private tests."""
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
    """IFEval: a prompt with the instructions that the response must follow."""
    given = list(zip(raw["instruction_id_list"], raw["kwargs"], strict=True))
    instructions = [
        {"id": str(name), **{k: v for k, v in (kwargs or {}).items() if v is not None}} for name, kwargs in given
    ]
    return {"id": str(raw["key"]), "prompt": str(raw["prompt"]), "answer": {"instructions": instructions}}
