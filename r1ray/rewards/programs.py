"""Judging a program by its tests, in the sandbox. Runs in a worker process, on the program lane of the scorer."""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1ray.errors import DataError
from r1ray.rewards.running import Limits, Outcome, supervise
from r1ray.rewards.sandbox import Program, Sandbox

_GUEST = (Path(__file__).parent / "guest.py").read_bytes()
_COMPILE = 'g++ -std=c++17 -O1 -w -x c++ "$0" -o /tmp/main && cat /tmp/main'
_COMPILE_MEMORY = 2 << 30
_MAX_BINARY = 64 << 20
_FLOAT_TOLERANCE = 1e-6
_GRACE_S = 1.0
"""What starting the judge may take besides the tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Of one test."""

    test: int  # from 0
    why: str | None  # None: passed; else wrong, crash, timeout, memory, output, compile, or unfit: the test itself
    text: str = ""


def judge(
    code: str,
    language: str,
    tests: dict[str, Any],
    partial: bool,
    test_timeout_s: float,
    memory_bytes: int,
    sandbox: str,
    limit_s: float,
) -> tuple[float, str | None]:
    """The share of tests that pass (`partial`), or 1.0 where all do; and which failed first, and why.

    `tests` is what `code.CodeTests` describes. Time-outs of the program are failed tests: each may take `test_timeout_s`
    seconds, and all together `limit_s`.
    Raises DataError where a test cannot be run at all.
    """
    box = Sandbox(sandbox)
    limits = Limits(wall_s=min(test_timeout_s, limit_s), cpu_s=math.ceil(limit_s), memory_bytes=memory_bytes)
    deadline = time.monotonic() + limit_s
    if tests["kind"] == "stdio":
        verdicts = _by_output(box, code, language, tests["cases"], limits, deadline)
        total = len(tests["cases"])
    else:
        verdicts = _by_calls(box, code, tests, limits, deadline)
        total = len(tests["asserts"]) + len(tests["calls"])
    passed = 0
    first = None
    for verdict in verdicts:
        if verdict.why == "unfit":
            raise DataError(f"test {verdict.test + 1} cannot be run apart from the program: {verdict.text}")
        passed += verdict.why is None
        if verdict.why and first is None:
            first = f"test {verdict.test + 1} of {total}: {verdict.why}" + (f": {verdict.text}" if verdict.text else "")
        if verdict.why and not partial:
            break
    return (passed / total if partial else float(passed == total)), first


def _by_output(
    box: Sandbox, code: str, language: str, cases: list[dict[str, str]], limits: Limits, deadline: float
) -> Iterator[Verdict]:
    """Run the program once for each case and compare what it prints. The expected output never goes inside."""
    run = _runner(box, code, language, deadline)
    if isinstance(run, Verdict):
        yield run
        return
    for i, case in enumerate(cases):
        left = deadline - time.monotonic()
        if left <= 0:
            yield Verdict(test=i, why="timeout", text="the time for all tests was over")
            return
        expected = case["stdout"]
        room = max(limits.output_bytes, 2 * len(expected))
        allowed = Limits(
            wall_s=min(limits.wall_s, left),
            cpu_s=limits.cpu_s,
            memory_bytes=limits.memory_bytes,
            output_bytes=room,
        )
        yield _compared(i, run(case["stdin"].encode("utf-8", "surrogatepass"), allowed), expected)


def _compared(test: int, outcome: Outcome, expected: str) -> Verdict:
    if outcome.reason != "exit":
        return Verdict(test=test, why=outcome.reason)
    if outcome.code != 0:
        said = outcome.stderr.decode(errors="replace").strip().splitlines()
        return Verdict(test=test, why="crash", text=said[-1][:200] if said else f"exit code {outcome.code}")
    given = outcome.stdout.decode(errors="replace")
    if same_output(given, expected):
        return Verdict(test=test, why=None)
    return Verdict(test=test, why="wrong", text=f"printed {given[:80]!r}, expected {expected[:80]!r}")


def same_output(given: str, expected: str) -> bool:
    """Equality line by line, apart from white space at line ends; numbers with a point may differ by a millionth."""
    left = [line.split() for line in given.rstrip().splitlines()]
    right = [line.split() for line in expected.rstrip().splitlines()]
    return len(left) == len(right) and all(
        len(a) == len(b) and all(map(_same_word, a, b)) for a, b in zip(left, right, strict=True)
    )


def _same_word(given: str, expected: str) -> bool:
    if given == expected:
        return True
    if "." not in expected or len(given) > 400:
        return False
    try:
        a, b = float(given), float(expected)
    except ValueError:
        return False
    return abs(a - b) <= _FLOAT_TOLERANCE * max(1.0, abs(b))


Run = Callable[[bytes, Limits], Outcome]


def _runner(box: Sandbox, code: str, language: str, deadline: float) -> Run | Verdict:
    """What runs the program on an input; the verdict where it does not compile."""
    source = code.encode("utf-8", "surrogatepass")
    if language == "python":
        return _interpreter(box, [box.python, "-I", "-B", "{box}/main.py"], "main.py", source)
    if language == "bash":
        return _interpreter(box, ["bash", "{box}/main.sh"], "main.sh", source)
    if language == "javascript":
        node = box.tool("node", "nodejs")
        return _interpreter(box, [_needed(node, language), "{box}/main.js"], "main.js", source, reserves=True)
    _needed(box.tool("g++"), language)
    limits = Limits(
        wall_s=max(0.1, deadline - time.monotonic()),
        cpu_s=60,
        memory_bytes=_COMPILE_MEMORY,
        file_bytes=_MAX_BINARY,
        output_bytes=_MAX_BINARY,
    )
    built = box.run(Program(argv=["bash", "-c", _COMPILE, "{box}/main.cpp"], files={"main.cpp": source}), limits)
    if built.reason != "exit" or built.code != 0:
        errors = [line for line in built.stderr.decode(errors="replace").splitlines() if "error" in line]
        return Verdict(test=0, why="compile", text=errors[0][:200] if errors else built.reason)
    return _interpreter(box, ["{box}/main"], "main", built.stdout)


def _interpreter(box: Sandbox, argv: list[str], name: str, content: bytes, *, reserves: bool = False) -> Run:
    return lambda stdin, limits: box.run(
        Program(argv=argv, files={name: content}, stdin=stdin, reserves=reserves), limits
    )


def _needed(tool: str | None, language: str) -> str:
    if tool is None:
        raise DataError(f"a program in {language} cannot be run: this machine has no interpreter or compiler for it")
    return tool


def _by_calls(box: Sandbox, code: str, tests: dict[str, Any], limits: Limits, deadline: float) -> Iterator[Verdict]:
    """Run the tests in one sandbox and the program in another (see guest.py), and read the judge's reports."""
    ours, theirs = socket.socketpair()
    work = json.dumps({"code": code, "tests": tests}).encode()
    with ExitStack() as stack, ours, theirs:
        argv = (box.python, "-I", "-B", "{box}/guest.py")
        sides = [
            Program(argv=[*argv, "judge", str(ours.fileno())], files={"guest.py": _GUEST}, fds=[ours.fileno()], stdin=work),
            Program(argv=[*argv, "candidate", str(theirs.fileno())], files={"guest.py": _GUEST}, fds=[theirs.fileno()]),
        ]  # fmt: skip
        running = [box.start(side, limits, stack) for side in sides]
        ours.close()
        theirs.close()
        # The judge tells of each test, and only it can: its silence is a test that takes too long.
        supervise(running, max(0.1, deadline - time.monotonic()) + _GRACE_S, quiet_s=limits.wall_s + _GRACE_S)
        judged, candidate = (one.outcome for one in running)
    total = len(tests["asserts"]) + len(tests["calls"])
    reports = [json.loads(line) for line in judged.stdout.splitlines() if line.endswith(b"}")]
    for report in reports:
        if (report["stop"] and candidate.reason == "memory") or report["text"].startswith("MemoryError"):
            report["why"] = "memory"
        yield Verdict(test=report["test"], why=report["why"], text=report["text"])
    if len(reports) < total and not (reports and reports[-1]["stop"]):
        if not reports and judged.reason == "exit" and candidate.reason == "exit":
            said = (judged.stderr.decode(errors="replace").strip() or "no message").splitlines()[-1][:200]
            raise DataError(f"the tests themselves failed to run: {said}")
        why = "memory" if "memory" in (candidate.reason, judged.reason) else judged.reason
        yield Verdict(test=len(reports), why="crash" if why == "exit" else why)
