"""The benchmarks. k is that of DeepSeek-R1's evaluation where it states one (arXiv 2501.12948v2): 64 for AIME and GPQA, 16 for
MATH-500, 8 for LiveCodeBench; one sample a problem of the large sets, four of the small ones otherwise."""

from __future__ import annotations

import difflib
import hashlib
import json
import random
from collections.abc import Mapping
from typing import Any

from r1ray.config.schema import SourceConfig
from r1ray.errors import ConfigError, DataError
from r1ray.evaluation.benchmarks.base import BOXED, Benchmark, Row
from r1ray.tasks import TASKS

SYNTHETIC_LIMIT = 256
"""Problems of a synthetic task where nothing else is said."""

LETTERS = "ABCDEFGHIJ"


def _hub(path: str, split: str) -> SourceConfig:
    return SourceConfig(name=path, kind="hf", path=path, split=split)


def _problem(raw: Mapping[str, Any], number: int) -> Row:
    return {"id": str(number), "prompt": f"{raw['problem']}{BOXED}", "answer": str(raw["answer"])}


def _gsm8k(raw: Mapping[str, Any], number: int) -> Row:
    _, mark, answer = str(raw["answer"]).rpartition("####")
    if not mark:
        raise DataError("the answer does not hold the mark '####'")
    return {"id": str(number), "prompt": f"{raw['question']}{BOXED}", "answer": answer.strip()}


def _choices(question: str, options: list[str], right: int) -> Row:
    """A question with lettered options. The order is shuffled by a hash of the question, so that it is the same everywhere."""
    order = list(range(len(options)))
    seed = hashlib.blake2b(question.encode(), digest_size=8).digest()
    random.Random(seed).shuffle(order)
    listed = "\n".join(f"{letter}. {options[i]}" for letter, i in zip(LETTERS, order, strict=False))
    prompt = f"{question}\n\n{listed}\n\nEnd with the letter of the right option within \\boxed{{}}."
    answer = {"answer": LETTERS[order.index(right)], "choices": [options[i] for i in order]}
    return {"prompt": prompt, "answer": answer}


def _gpqa(raw: Mapping[str, Any], number: int) -> Row:
    options = [str(raw[name]).strip() for name in ("Correct Answer", *(f"Incorrect Answer {i}" for i in (1, 2, 3)))]
    return {"id": str(number), **_choices(str(raw["Question"]).strip(), options, 0)}


def _mmlu(raw: Mapping[str, Any], number: int) -> Row:
    return {
        "id": str(number),
        "domain": str(raw["subject"]),
        **_choices(str(raw["question"]), [str(c) for c in raw["choices"]], int(raw["answer"])),
    }


def _humaneval(raw: Mapping[str, Any], number: int) -> Row:
    ask = "Complete this Python function. Answer with the whole function in one fenced block."
    prompt = f"{ask}\n\n```python\n{raw['prompt']}```"
    answer = {"entry_point": raw["entry_point"], "test": raw["test"], "prompt": raw["prompt"]}
    return {"id": str(raw["task_id"]), "prompt": prompt, "answer": answer}


def _mbpp(raw: Mapping[str, Any], number: int) -> Row:
    tests = [str(test) for test in raw["test_list"]]
    shown = "\n".join(tests)
    prompt = f"{raw['text']}\nAnswer with Python code in one fenced block. It must pass:\n\n```python\n{shown}\n```"
    return {"id": str(raw["task_id"]), "prompt": prompt, "answer": {"asserts": tests}}


def _livecodebench(raw: Mapping[str, Any], number: int) -> Row:
    try:
        cases = json.loads(str(raw["public_test_cases"]))
        name = json.loads(str(raw.get("metadata") or "{}")).get("func_name")
        tests = [{"input": case["input"], "output": case["output"]} for case in cases]
    except (ValueError, TypeError, KeyError) as e:
        raise DataError(f"public_test_cases cannot be read: {e}") from e
    ask = "Answer with a whole Python program in one fenced block; it reads standard input and writes standard output."
    answer: Any = tests
    if name:
        ask = f"Answer with Python code in one fenced block that begins with\n\n```python\n{raw['starter_code']}\n```"
        answer = {"function": name, "tests": tests}
    return {"id": str(raw["question_id"]), "prompt": f"{raw['question_content']}\n\n{ask}", "answer": answer}


def _ifeval(raw: Mapping[str, Any], number: int) -> Row:
    given = list(zip(raw["instruction_id_list"], raw["kwargs"], strict=True))
    instructions = [
        {"id": str(name), **{k: v for k, v in (kwargs or {}).items() if v is not None}} for name, kwargs in given
    ]
    return {"id": str(raw["key"]), "prompt": str(raw["prompt"]), "answer": {"instructions": instructions}}


_PUBLISHED = (
    Benchmark(
        name="aime24", source=_hub("HuggingFaceH4/aime_2024", "train"), columns=("problem", "answer"), row=_problem, k=64,
        doc="American Invitational Mathematics Examination 2024, 30 problems",
    ),
    Benchmark(
        name="aime25", source=_hub("math-ai/aime25", "test"), columns=("problem", "answer"), row=_problem, k=64,
        doc="the same of 2025",
    ),
    Benchmark(
        name="math500", source=_hub("HuggingFaceH4/MATH-500", "test"), columns=("problem", "answer"), row=_problem, k=16,
        doc="500 problems of MATH",
    ),
    Benchmark(
        name="gsm8k", source=_hub("openai/gsm8k", "test"), subset="main", columns=("question", "answer"), row=_gsm8k,
        doc="grade school mathematics, 1,319 problems",
    ),
    Benchmark(
        name="gpqa_diamond", source=_hub("Idavidrein/gpqa", "train"), subset="gpqa_diamond",
        columns=("Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
        row=_gpqa, verifier="choice", k=64, doc="198 questions of graduate science, four options each",
    ),
    Benchmark(
        name="mmlu", source=_hub("cais/mmlu", "test"), subset="all", columns=("question", "subject", "choices", "answer"),
        row=_mmlu, verifier="choice", doc="14,042 questions of 57 subjects",
    ),
    Benchmark(
        name="humaneval", source=_hub("openai/openai_humaneval", "test"), columns=("task_id", "prompt", "test", "entry_point"),
        row=_humaneval, verifier="code", k=4, votes=False, doc="164 Python functions",
    ),
    Benchmark(
        name="mbpp", source=_hub("google-research-datasets/mbpp", "test"), subset="full",
        columns=("task_id", "text", "test_list"), row=_mbpp, verifier="code", k=4, votes=False, doc="500 short Python programs",
    ),
    Benchmark(
        name="livecodebench", source=_hub("livecodebench/code_generation_lite", "test"),
        columns=("question_id", "question_content", "starter_code", "public_test_cases", "metadata"),
        row=_livecodebench, verifier="code", k=8, votes=False,
        doc="programming contests; the public tests alone, as the private ones are pickled",
    ),
    Benchmark(
        name="ifeval", source=_hub("google/IFEval", "train"), columns=("key", "prompt", "instruction_id_list", "kwargs"),
        row=_ifeval, verifier="instructions", k=4, votes=False, doc="541 prompts with instructions that can be checked",
    ),
)  # fmt: skip

BENCHMARKS = {benchmark.name: benchmark for benchmark in _PUBLISHED}
"""Published benchmarks; synthetic tasks are benchmarks too, see `find`."""


def find(spec: str) -> Benchmark:
    """The benchmark that `spec` names: `gsm8k`, a synthetic task such as `bus`, or one with parameters: `bus:n=4-7`.

    Raises ConfigError for an unknown one, with the nearest name.
    """
    name, _, rest = spec.partition(":")
    if name in BENCHMARKS:
        if rest:
            raise ConfigError(f"--benchmarks {spec}: only synthetic tasks have parameters")
        return BENCHMARKS[name]
    if name in TASKS:
        source = SourceConfig(name=spec, kind="synthetic", path=name, split="heldout", params=_params(spec, rest))
        source.limit = SYNTHETIC_LIMIT
        code = name == "transpose"
        return Benchmark(name=spec, source=source, verifier="code" if code else "task", votes=not code, k=4)
    known = [*BENCHMARKS, *TASKS]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
    raise ConfigError(f"--benchmarks {spec}: there is no benchmark {name!r}; {hint}")


def _params(spec: str, text: str) -> dict[str, Any]:
    """`n=4-7;kind=x;languages=en+zh` as parameters of a task: numbers, spans of numbers, text, lists of texts."""
    params: dict[str, Any] = {}
    for item in filter(None, text.split(";")):
        key, equals, value = item.partition("=")
        if not (key and equals and value):
            raise ConfigError(f"--benchmarks {spec}: parameters are written key=value, with ; between them")
        low, dash, high = value.partition("-")
        if value.isdigit():
            params[key] = int(value)
        elif dash and low.isdigit() and high.isdigit():
            params[key] = [int(low), int(high)]
        else:
            params[key] = value.split("+") if "+" in value else value
    return params
