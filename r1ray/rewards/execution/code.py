"""The code verifier: from a response and the tests on record to a call that runs them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from r1ray.errors import ConfigError, DataError
from r1ray.rewards.answers.answer import answer_part
from r1ray.rewards.base import Call, Reward, Sample

LANGUAGES = {
    "python": "python", "python3": "python", "py": "python", "py3": "python", "bash": "bash", "sh": "bash", "shell": "bash",
    "cpp": "cpp", "c++": "cpp", "cc": "cpp", "cxx": "cpp", "c++17": "cpp", "cpp17": "cpp",
    "javascript": "javascript", "js": "javascript", "node": "javascript", "nodejs": "javascript",
}  # fmt: skip
"""What a record or a fenced block may call a language -> what it is run as."""

MAX_CODE_CHARS = 1 << 18
_EXTRA_S = 8.0  # beyond the limit, which the sandbox keeps itself: to start it, and to end it
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+#.-]*)[^\n]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeVerifier(Reward):
    """1.0 where the program passes all of its tests; with `partial` the share that it passes.

    The program is the last fenced block of the answer, or all of the answer where nothing is fenced.
    """

    language: Literal["auto", "python", "bash", "cpp", "javascript"] = (
        "auto"  # auto: of the record, else the fence, else Python
    )
    partial: bool = False
    test_timeout_s: float = 5.0  # of one test
    suite_timeout_s: float = 60.0  # of all tests of a program, however many; fewer than fill it get less
    memory_mib: int = 512

    def __post_init__(self) -> None:
        if self.test_timeout_s <= 0 or self.suite_timeout_s < self.test_timeout_s or self.memory_mib < 64:
            raise ConfigError(
                f"accuracy/code: test_timeout_s = {self.test_timeout_s} must be above 0, suite_timeout_s = "
                f"{self.suite_timeout_s} at least as much, memory_mib = {self.memory_mib} at least 64"
            )

    def __call__(self, sample: Sample) -> float | Call:
        tests = code_tests(sample.meta.get("tests", sample.answer))  # a scored row may have an answer beside them
        wanted = self._wanted(tests, sample)  # before the program: faults of the record do not depend on the response
        code, fence = program(sample.response, opened=sample.opened)
        if not code.strip() or len(code) > MAX_CODE_CHARS:
            return 0.0
        return Call(
            function="r1ray.rewards.execution.programs:judge",
            args={
                "code": tests["before"] + code,
                "language": wanted or LANGUAGES.get(fence.lower(), fence or "python"),
                "chosen": not wanted,
                "tests": _as_json(tests),
                "partial": self.partial,
                "test_timeout_s": self.test_timeout_s,
                "memory_bytes": self.memory_mib << 20,
            },
            lane="program",
            memory_bytes=None,
            limit_s=min(self.suite_timeout_s, number_of_tests(tests) * self.test_timeout_s),
            extra_s=_EXTRA_S,
        )

    def _wanted(self, tests: Mapping[str, Any], sample: Sample) -> str:
        """The language that the program must be in; empty where it may choose. Raises DataError for one that is not run."""
        recorded = str(tests["language"] or sample.meta.get("language") or "")
        known = LANGUAGES.get(recorded.lower())
        if recorded and known is None:
            runs = ", ".join(sorted(set(LANGUAGES.values())))
            raise DataError(f"the language on record is {recorded!r:.40}; programs are run in {runs}")
        if tests["kind"] == "calls":
            if recorded and known != "python":
                raise DataError(
                    f"the language on record is {recorded}, and tests that call functions are run in Python only"
                )
            return "python"
        return self.language if self.language != "auto" else known or ""

    @property
    def sandboxed(self) -> bool:
        """See Reward."""
        return True


def program(response: str, *, opened: bool = False) -> tuple[str, str]:
    """The last fenced block of the answer part and what its fence calls it; all of the answer where nothing is fenced."""
    part = answer_part(response, opened=opened)
    end = part.rfind("</answer>")
    start_tag = part.rfind("<answer>", 0, max(0, end))
    part = part[start_tag + len("<answer>") : end] if start_tag >= 0 else part
    part = part[-MAX_CODE_CHARS:]
    last = ("", "")
    start: re.Match[str] | None = None
    for fence in _FENCE.finditer(part):
        if start is None:
            start = fence
        elif fence[1] == start[1] and not fence[2]:
            last = part[start.end() + 1 : fence.start()], start[2]
            start = None
    return last if last[0] or start else (part, "")


def code_tests(record: Any) -> dict[str, Any]:
    """The tests on record in one of two forms. Raises DataError for what is in none of the shapes below, plain or as JSON.

    [{"stdin", "stdout"}, ...]                                     (input and output are other names for them)
    {"inputs": ["1\\n", ...], "outputs": ["2\\n", ...]}                             APPS, TACO
    {"inputs": [[1], ...], "outputs": [2, ...], "fn_name": "f"}                     APPS, TACO
    ["assert f(1) == 2", ...]
    {"asserts": ["assert f(1) == 2", ...], "setup": "import math"}
    {"test_list": ["assert f(1) == 2", ...], "test_setup_code": "", "test_imports": ["import math"]}   MBPP
    {"entry_point": "f", "test": "def check(candidate): ...", "prompt": ...}        HumanEval
    {"function": "f", "calls": [{"args": [1], "expected": 2}, ...]}
    {"function": "f", "tests": [{"input": "1", "output": "2"}, ...]}                LiveCodeBench: JSON, an argument a line
    {"tests": any of these, "language": "bash", "prompt": ...}

    Out come {"kind": "stdio", "cases": [{stdin, stdout}], "before", "language"} or {"kind": "calls", "setup", "asserts",
    "calls", "names", "before", "language"}: `before` is what stands before the program, `names` what the tests call.
    """
    try:
        raw = json.loads(record) if isinstance(record, str) else record
        language = raw.get("language") if isinstance(raw, Mapping) else None
        tests = {**_tests(raw), "language": str(language or "")}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as e:
        raise DataError(f"the tests on record have none of the known shapes ({e!r}): {record!r:.120}") from e
    if not (tests["cases"] if tests["kind"] == "stdio" else tests["asserts"] or tests["calls"]):
        raise DataError("there are no tests on record")
    return tests


def _as_json(tests: Mapping[str, Any]) -> str:
    """The tests as text: in JSON whole numbers have no largest, in msgpack 64 bits. Raises DataError for what it cannot say."""
    try:
        return json.dumps(tests)
    except (TypeError, ValueError, RecursionError) as e:
        raise DataError(f"the tests on record are not what JSON can say ({e}): {tests!r:.120}") from e


def number_of_tests(tests: Mapping[str, Any]) -> int:
    """Of tests in a form of `code_tests`."""
    return len(tests["cases"]) if tests["kind"] == "stdio" else len(tests["asserts"]) + len(tests["calls"])


def _tests(record: Any) -> dict[str, Any]:
    if not isinstance(record, Mapping):
        return _listed(record)
    prompt = str(record.get("prompt", ""))
    before = prompt + "\n" if prompt else ""
    if "asserts" in record:
        return _calls(before, setup=str(record.get("setup", "")), asserts=[str(a) for a in record["asserts"]])
    if "test_list" in record:
        setup = [*record.get("test_imports", []), record.get("test_setup_code", "")]
        return _calls(before, setup="\n".join(map(str, setup)), asserts=[str(a) for a in record["test_list"]])
    if "entry_point" in record:
        name = str(record["entry_point"])
        return _calls(before, setup=prompt, asserts=[f"{record['test']}\ncheck({name})"], names=[name])
    if "function" in record:
        name = str(record["function"])
        return _calls(before, calls=[_call(name, c) for c in record.get("calls") or _plain(record["tests"])])
    if "inputs" in record:
        return _paired(record, before)
    inner = _plain(record["tests"])
    return _tests({"prompt": prompt, **inner}) if isinstance(inner, Mapping) else {**_tests(inner), "before": before}


def _plain(tests: Any) -> Any:
    return json.loads(tests) if isinstance(tests, str) else tests


def _listed(tests: Any) -> dict[str, Any]:
    if tests and all(isinstance(t, str) and "assert" in t for t in tests):
        return _calls("", asserts=list(tests))
    if any(t.get("testtype") == "functional" for t in tests):
        raise ValueError("tests of a function need its name: {'function': ..., 'tests': [...]}")
    cases = [{"stdin": _either(t, "stdin", "input"), "stdout": _either(t, "stdout", "output")} for t in tests]
    return {"kind": "stdio", "cases": cases, "before": ""}


def _paired(record: Mapping[str, Any], before: str) -> dict[str, Any]:
    pairs = list(zip(record["inputs"], record["outputs"], strict=True))
    name = record.get("fn_name")
    if not name:
        return {
            "kind": "stdio",
            "cases": [{"stdin": _lines(i), "stdout": _lines(o)} for i, o in pairs],
            "before": before,
        }
    if any(not isinstance(given, list) for given, _ in pairs):
        raise ValueError("each of `inputs` must be the list of a function's arguments")
    # Some files have each result in a list of its own, which no file says of itself.
    boxed = all(isinstance(expected, list) and len(expected) == 1 for _, expected in pairs)
    calls = [{"function": str(name), "args": given, "expected": expected} for given, expected in pairs]
    return _calls(before, calls=[{**call, "boxed": True} for call in calls] if boxed else calls)


def _lines(text: Any) -> str:
    """A text, or its lines."""
    return "\n".join(map(str, text)) if isinstance(text, list) else str(text)


def _calls(
    before: str,
    *,
    setup: str = "",
    asserts: Sequence[str] = (),
    calls: Sequence[dict[str, Any]] = (),
    names: Sequence[str] = (),
) -> dict[str, Any]:
    forms = {"setup": setup, "asserts": list(asserts), "calls": list(calls), "names": list(names)}
    return {"kind": "calls", "before": before, **forms}


def _call(function: str, case: Mapping[str, Any]) -> dict[str, Any]:
    if "args" in case:
        return {"function": function, "args": list(case["args"]), "expected": case["expected"]}
    args = [json.loads(line) for line in case["input"].split("\n") if line.strip()]
    return {"function": function, "args": args, "expected": json.loads(case["output"])}


def _either(case: Mapping[str, Any], name: str, other: str) -> str:
    return str(case[name] if name in case else case[other])
