"""Judge a program by its tests in the sandbox. Runs in a worker process, on the program lane of the scorer."""

from __future__ import annotations

import json
import math
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1ray.errors import DataError
from r1ray.rewards.execution.comparison import same_output
from r1ray.rewards.execution.running import Limits, Outcome, supervise
from r1ray.rewards.execution.sandbox import Program, Sandbox

_HERE = Path(__file__).parent
_GUEST = {"guest.py": (_HERE / "guest.py").read_bytes()} | {
    f"r1ray/rewards/execution/{name}": (_HERE / name).read_bytes()
    for name in ("comparison.py", "crossing.py", "leetcode.py", "namespaces.py")
}
"""The files that run inside the sandbox. guest.py imports the others under the same names as here."""
_INTEGERS = ("-X", "int_max_str_digits=0")
"""Python's bound on the digits of integers would fail programs that print long ones."""
_COMPILE = 'g++ -std=c++17 -O1 -w -x c++ "$0" -o /tmp/main && cat /tmp/main'
_TOOLS = {"python": ("bash",), "bash": ("bash",), "cpp": ("g++",), "javascript": ("node", "nodejs")}
"""Language -> programs of which one must be installed. The sandbox finds Python itself; bash starts every program."""
_COMPILE_MEMORY = 2 << 30
_MAX_BINARY = 64 << 20
_GRACE_S = 1.0
"""Time to start the judge, on top of the tests' own."""
_OUT_OF_TIME = "the time for all tests was over"
_REPORT_BYTES = 4096
"""Maximum size of one report of the judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of one test."""

    test: int  # from 0
    why: str | None  # None: passed; else wrong, crash, timeout, memory, output, compile, language, or unfit (bad test)
    text: str = ""


Run = Callable[[bytes, Limits], Outcome]


def judge(
    code: str,
    language: str,
    chosen: bool,
    tests: str,
    partial: bool,
    test_timeout_s: float,
    memory_bytes: int,
    sandbox: str,
    limit_s: float,
) -> tuple[float, str | None]:
    """Run a program's tests.

    Returns the share of tests that pass (`partial`), or 1.0 if all do, else 0.0; and which test
    failed first, and why.

    `tests` is the JSON of `code.as_json`; `chosen`: the program chose the language, not the record.
    A timeout of the program is a failed test: each test may take `test_timeout_s` seconds, and all
    together `limit_s`. Raises DataError if a test cannot be run at all.
    """
    box = Sandbox(sandbox)
    suite: dict[str, Any] = json.loads(tests)
    # The wall clock must run out first: the limit on processor time would end a busy loop under
    # another name.
    cpu_s = math.ceil(limit_s) + 1
    limits = Limits(wall_s=min(test_timeout_s, limit_s), cpu_s=cpu_s, memory_bytes=memory_bytes)
    deadline = time.monotonic() + limit_s
    if suite["kind"] == "stdio":
        verdicts = _by_output(_runner(box, code, language, chosen, deadline), suite["cases"], limits, deadline)
        total = len(suite["cases"])
    else:
        verdicts = _by_calls(box, {"code": code, "tests": suite, "partial": partial}, limits, deadline)
        total = len(suite["asserts"]) + len(suite["calls"])
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


_FAILED = re.compile(r"test \d+ of \d+: (\w+)")


def killed_for(failed: str | None) -> str | None:
    """The limit for which a program was killed, from the second result of `judge`; None if it ended by itself."""
    found = _FAILED.match(failed or "")
    return found[1] if found and found[1] in ("timeout", "memory", "output") else None


def _by_output(run: Run | Verdict, cases: list[dict[str, str]], limits: Limits, deadline: float) -> Iterator[Verdict]:
    """Run the program once for each case and compare its output. The expected output never enters the sandbox."""
    if isinstance(run, Verdict):
        yield run
        return
    for i, case in enumerate(cases):
        left = deadline - time.monotonic()
        if left <= 0:
            yield Verdict(test=i, why="timeout", text=_OUT_OF_TIME)
            return
        expected = case["stdout"]
        room = max(limits.output_bytes, 2 * len(expected))
        allowed = replace(limits, wall_s=min(limits.wall_s, left), output_bytes=room)
        yield _compared(i, run(case["stdin"].encode("utf-8", "surrogatepass"), allowed), expected)


def _compared(test: int, outcome: Outcome, expected: str) -> Verdict:
    if outcome.reason != "exit":
        return Verdict(test=test, why=outcome.reason)
    if outcome.code != 0:
        stderr = outcome.stderr.decode(errors="replace").strip().splitlines()
        return Verdict(test=test, why="crash", text=stderr[-1][:200] if stderr else f"exit code {outcome.code}")
    given = outcome.stdout.decode(errors="replace")
    if same_output(given, expected):
        return Verdict(test=test, why=None)
    return Verdict(test=test, why="wrong", text=f"printed {given[:80]!r}, expected {expected[:80]!r}")


def _runner(box: Sandbox, code: str, language: str, chosen: bool, deadline: float) -> Run | Verdict:
    """A function that runs the program on an input, or the verdict if the program does not compile.

    A language that cannot be run is a verdict too if the program chose it.
    Raises DataError if this machine lacks what a recorded language needs.
    """
    if language not in _TOOLS:
        return Verdict(test=0, why="language", text=f"programs in {language[:40]} are not run")
    tool = box.tool(*_TOOLS[language])
    if tool is None:
        missing = f"this machine has no interpreter or compiler for {language}"
        if chosen:
            return Verdict(test=0, why="language", text=missing)
        raise DataError(f"a program cannot be run: {missing}")
    source = code.encode("utf-8", "surrogatepass")
    if language == "python":
        return _interpreter(box, [box.python, "-I", "-B", *_INTEGERS, "{box}/main.py"], "main.py", source)
    if language == "bash":
        return _interpreter(box, ["bash", "{box}/main.sh"], "main.sh", source)
    if language == "javascript":
        return _interpreter(box, [tool, "{box}/main.js"], "main.js", source, reserves=True)
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


def _by_calls(box: Sandbox, work: dict[str, Any], limits: Limits, deadline: float) -> Iterator[Verdict]:
    """Run the tests in one sandbox and the program in another (see guest.py), and read the judge's reports.

    If the program ended or ran out of time, it is started again for the test after the one that it
    failed. `work` holds the code, the tests, and whether there is credit for some of them
    (`partial`).
    """
    total = len(work["tests"]["asserts"]) + len(work["tests"]["calls"])
    first = 0
    while first < total:
        left = deadline - time.monotonic()
        if first and left <= 0:
            yield Verdict(test=first, why="timeout", text=_OUT_OF_TIME)
            return
        verdicts, again = _session(box, {**work, "first": first}, total, limits, max(0.1, left))
        yield from verdicts
        if not again:
            return
        first = verdicts[-1].test + 1


def _session(
    box: Sandbox, work: dict[str, Any], total: int, limits: Limits, left_s: float
) -> tuple[list[Verdict], bool]:
    """Verdicts on the tests from work["first"] on, and whether the program should be started again
    for the rest.

    Raises DataError if the tests fail before the program is loaded: that is not the program's
    fault.
    """
    judged, candidate = _outcomes(box, {**work, "test_s": limits.wall_s}, total, limits, left_s)
    reports = [json.loads(line) for line in judged.stdout.splitlines(keepends=True) if line.endswith(b"}\n")]
    if not reports and work["first"]:  # they did run, before the program was started again
        return [Verdict(test=work["first"], why="timeout", text=_OUT_OF_TIME)], False
    if not reports:
        stderr = (judged.stderr.decode(errors="replace").strip() or "no message").splitlines()[-1][:200]
        raise DataError(f"the tests themselves failed to run: {judged.reason}: {stderr}")
    reports = reports[1:]
    for report in reports:
        # The supervisor knows better than the judge why the program ended, e.g. that it exceeded
        # its memory.
        if report["ends"] and report["why"] == "crash" and candidate.reason != "exit":
            report.update(why=candidate.reason, text="")
    verdicts = [Verdict(test=r["test"], why=r["why"], text=r["text"]) for r in reports]
    if reports and reports[-1]["ends"]:
        return verdicts, reports[-1]["ends"] == "session"
    next_test = work["first"] + len(reports)
    complete = next_test == total or (reports and reports[-1]["why"] and not work["partial"])
    if not complete and not (reports and reports[-1]["why"] == "unfit"):
        why = candidate.reason if judged.reason == "exit" else judged.reason
        text = _OUT_OF_TIME if why == "timeout" else ""
        verdicts.append(Verdict(test=next_test, why="crash" if why == "exit" else why, text=text))
    return verdicts, False


def _outcomes(box: Sandbox, work: dict[str, Any], total: int, limits: Limits, left_s: float) -> tuple[Outcome, Outcome]:
    """Run judge and candidate. Returns how each of them ended."""
    ours, theirs = socket.socketpair()
    reports = replace(limits, output_bytes=max(limits.output_bytes, _REPORT_BYTES * total))
    with ExitStack() as stack, ours, theirs:
        # Not -I: it would hide the modules beside guest.py. Environment and folder hold nothing
        # else that could be imported.
        argv = (box.python, "-E", "-s", "-B", *_INTEGERS, "{box}/guest.py")
        sides = [
            (Program(argv=[*argv, "judge", str(ours.fileno())], files=_GUEST, fds=[ours.fileno()],
                     stdin=json.dumps(work).encode()), reports),
            (Program(argv=[*argv, "candidate", str(theirs.fileno())], files=_GUEST, fds=[theirs.fileno()]), limits),
        ]  # fmt: skip
        running = [box.start(side, allowed, stack) for side, allowed in sides]
        ours.close()
        theirs.close()
        supervise(running, left_s + _GRACE_S)
        return running[0].outcome, running[1].outcome
