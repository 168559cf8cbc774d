"""Registry of benchmarks.

k is that of DeepSeek-R1's evaluation (arXiv 2501.12948v2) if it states one: 64 for AIME and GPQA, 16
for MATH-500, 8 for LiveCodeBench. Otherwise it is 1 for large sets and 4 for small ones.
"""

from __future__ import annotations

from typing import Any

from r1ray.config.rules import TASK_VERIFIERS
from r1ray.config.schema import SourceConfig
from r1ray.errors import ConfigError
from r1ray.evaluation.benchmarks import rows
from r1ray.evaluation.benchmarks.base import Benchmark
from r1ray.tasks import TASKS, gym
from r1ray.util.hints import nearest

SYNTHETIC_LIMIT = 256
"""Default number of problems of a synthetic task."""


def _hub(path: str, split: str) -> SourceConfig:
    return SourceConfig(name=path, kind="hf", path=path, split=split)


_PUBLISHED = (
    Benchmark(
        name="aime24",  # American Invitational Mathematics Examination 2024, 30 problems
        question="problem",
        source=_hub("HuggingFaceH4/aime_2024", "train"),
        columns=("problem", "answer"),
        row=rows.problem,
        k=64,
    ),
    Benchmark(
        name="aime25",  # the same, 2025
        question="problem",
        source=_hub("math-ai/aime25", "test"),
        columns=("problem", "answer"),
        row=rows.problem,
        k=64,
    ),
    Benchmark(
        name="math500",  # 500 problems of MATH
        question="problem",
        source=_hub("HuggingFaceH4/MATH-500", "test"),
        columns=("problem", "answer"),
        row=rows.problem,
        k=16,
    ),
    Benchmark(
        name="gsm8k",  # grade school mathematics, 1,319 problems
        question="question",
        source=_hub("openai/gsm8k", "test"),
        subset="main",
        columns=("question", "answer"),
        row=rows.gsm8k,
    ),
    Benchmark(
        name="gpqa_diamond",  # 198 questions of graduate science, four options each
        question="Question",
        source=_hub("Idavidrein/gpqa", "train"),
        subset="gpqa_diamond",
        columns=("Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
        row=rows.gpqa,
        verifier="choice",
        k=64,
    ),
    Benchmark(
        name="mmlu",  # 14,042 questions of 57 subjects
        question="question",
        source=_hub("cais/mmlu", "test"),
        subset="all",
        columns=("question", "subject", "choices", "answer"),
        row=rows.mmlu,
        verifier="choice",
    ),
    Benchmark(
        name="humaneval",  # 164 Python functions
        question="prompt",
        source=_hub("openai/openai_humaneval", "test"),
        columns=("task_id", "prompt", "test", "entry_point"),
        row=rows.humaneval,
        verifier="code",
        k=4,
    ),
    Benchmark(
        name="mbpp",  # 500 short Python programs
        question="text",
        source=_hub("google-research-datasets/mbpp", "test"),
        subset="full",
        columns=("task_id", "text", "test_list", "test_setup_code"),
        row=rows.mbpp,
        verifier="code",
        k=4,
    ),
    Benchmark(
        name="livecodebench",  # contest problems, judged by public and private tests
        question="question_content",
        source=_hub("livecodebench/code_generation_lite", "test"),
        columns=(
            "question_id",
            "question_content",
            "starter_code",
            "public_test_cases",
            "private_test_cases",
            "metadata",
        ),
        row=rows.livecodebench,
        verifier="code",
        k=8,
    ),
    Benchmark(
        name="ifeval",  # 541 prompts with verifiable instructions
        question="prompt",
        source=_hub("google/IFEval", "train"),
        columns=("key", "prompt", "instruction_id_list", "kwargs"),
        row=rows.ifeval,
        verifier="instructions",
        k=4,
    ),
)

BENCHMARKS = {benchmark.name: benchmark for benchmark in _PUBLISHED}
"""Published benchmarks; synthetic tasks are benchmarks too, see `find`."""


def find(spec: str) -> Benchmark:
    """The benchmark of a name such as `gsm8k`, or of a synthetic task: `bus`, with parameters `bus:n=4-7`.

    Raises ConfigError, with the nearest name, for an unknown one.
    """
    name, _, rest = spec.partition(":")
    if name in BENCHMARKS:
        if rest:
            raise ConfigError(f"--benchmarks {spec}: only synthetic tasks have parameters")
        return BENCHMARKS[name]
    if name in TASKS or name.startswith(gym.PREFIX):
        source = SourceConfig(name=spec, kind="synthetic", path=name, split="heldout", params=_params(spec, rest))
        source.limit = SYNTHETIC_LIMIT
        return Benchmark(name=spec, source=source, verifier=TASK_VERIFIERS.get(name, "task"), k=4)
    raise ConfigError(f"--benchmarks {spec}: there is no benchmark {name!r}; {nearest(name, [*BENCHMARKS, *TASKS])}")


def _params(spec: str, text: str) -> dict[str, Any]:
    """Parse parameters such as `n=4-7;kind=x;languages=en+zh`: numbers, ranges, text, lists of text."""
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
            parts = value.split("+")
            params[key] = parts if len(parts) > 1 and all(parts) else value  # `+` and `+-` are text
    return params
