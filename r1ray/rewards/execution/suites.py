"""Recorded tests of programs: from the shapes of published data sets to one of two forms."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from r1ray.errors import DataError
from r1ray.rewards.execution.crossing import UnsendableError, encode


def code_tests(record: Any) -> dict[str, Any]:
    """The recorded tests in one of two forms. Each of these shapes may also be JSON text:

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

    Returns {"kind": "stdio", "cases": [{stdin, stdout}], "before", "language"} or {"kind": "calls",
    "setup", "asserts", "calls", "names", "before", "language"}: `before` is code to put before the
    program, `names` what the program must define. Raises DataError for any other shape, and if
    there are no tests.
    """
    try:
        raw = _loads(record) if isinstance(record, str) else record
        language = raw.get("language") if isinstance(raw, Mapping) else None
        tests = {**_tests(raw), "language": str(language or "")}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as e:
        raise DataError(f"the recorded tests have none of the known shapes ({e!r}): {record!r:.120}") from e
    if not (tests["cases"] if tests["kind"] == "stdio" else tests["asserts"] or tests["calls"]):
        raise DataError("there are no recorded tests")
    return tests


def as_json(tests: Mapping[str, Any]) -> str:
    """The tests as JSON for `programs.judge`; arguments and results of calls are encoded as crossing.py does.

    Raises DataError if they hold a value that cannot be sent to a program.
    """
    try:
        calls = [
            {**call, "args": encode(call["args"], None), "expected": encode(call["expected"], None)}
            for call in tests.get("calls", ())
        ]
        return json.dumps({**tests, "calls": calls})
    except (TypeError, ValueError, RecursionError, UnsendableError) as e:
        raise DataError(f"the recorded tests hold a value that no program can be given ({e})") from e


def number_of_tests(tests: Mapping[str, Any]) -> int:
    """The number of tests in what `code_tests` returned."""
    return len(tests["cases"]) if tests["kind"] == "stdio" else len(tests["asserts"]) + len(tests["calls"])


def _loads(text: str) -> Any:
    """Parse JSON with integers of any length."""
    return json.loads(text, parse_int=_integer)


def _integer(digits: str) -> int:
    """`int` refuses text beyond `sys.get_int_max_str_digits()` digits; Decimal does not."""
    return int(digits) if len(digits) <= sys.int_info.str_digits_check_threshold else int(Decimal(digits))


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
    return _loads(tests) if isinstance(tests, str) else tests


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
        cases = [{"stdin": _lines(i), "stdout": _lines(o)} for i, o in pairs]
        return {"kind": "stdio", "cases": cases, "before": before}
    if any(not isinstance(given, list) for given, _ in pairs):
        raise ValueError("each of `inputs` must be the list of a function's arguments")
    # Some files wrap each result in a list, and do not say so: accept both.
    boxed = all(isinstance(expected, list) and len(expected) == 1 for _, expected in pairs)
    calls = [{"function": str(name), "args": given, "expected": expected} for given, expected in pairs]
    return _calls(before, calls=[{**call, "boxed": True} for call in calls] if boxed else calls)


def _lines(text: Any) -> str:
    """Text as it is, or a list of lines joined."""
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
    args = [_loads(line) for line in case["input"].split("\n") if line.strip()]
    return {"function": function, "args": args, "expected": _loads(case["output"])}


def _either(case: Mapping[str, Any], name: str, other: str) -> str:
    return str(case[name] if name in case else case[other])
