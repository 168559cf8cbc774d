"""Runs inside sandboxes, by a bare interpreter: the standard library only, and crossing.py.

Tests that call functions need two processes, so that what is judged shares nothing with what judges:

    judge (the data set's tests) ----- name, arguments ----> candidate (the model's code)
      | {"test": 3, "why": null}   <--- plain data ---------
      v stdout

The candidate may do to itself what it likes: it never sees a test, only arguments, and what it sends is data, of built-in
types, that the judge compares. Objects that are no plain data stay in the candidate; the judge gets a handle.
"""

from __future__ import annotations

import ast
import builtins
import functools
import json
import math
import os
import signal
import socket
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from r1ray.rewards.execution.crossing import Handle, Peer, Unsendable, decode, encode

_MAX_ITEMS = 100_000
_TOLERANCE = 1e-6


class Candidate:
    """Holds the model's code; answers one request a line."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._objects: list[Any] = []
        self._module = types.ModuleType("solution")
        sys.modules["solution"] = self._module  # dataclasses and the like look their module up

    def serve(self) -> None:
        """Until the judge hangs up."""
        for line in self._stream:
            try:
                reply = {"value": encode(self._do(**json.loads(line)), self._objects)}
            except BaseException as e:  # SystemExit, too, is an answer
                reply = {"raised": type(e).__name__, "text": _said(e)}
            self._stream.write(json.dumps(reply) + "\n")
            self._stream.flush()

    def _do(self, op: str, on: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        link = lambda tag, inner: self._objects[inner]  # noqa: E731
        target: Any = None if on is None else self._objects[on]
        values = [decode(a, link) for a in args]
        if op == "load":
            exec(compile(values[0], "<solution>", "exec"), self._module.__dict__)  # noqa: S102 - what the sandbox is for
            return [name for name in self._module.__dict__ if isinstance(name, str)]
        if op == "get":
            return _found(self._module, values[0])
        if op == "call":
            return target(*values, **{k: decode(v, link) for k, v in kwargs.items()})
        if op == "attribute":
            return getattr(target, values[0])
        if op == "item":
            return target[values[0]]
        if op == "iterate":
            return [item for item, _ in zip(target, range(_MAX_ITEMS), strict=False)]
        functions: dict[str, Any] = {"length": len, "truth": bool, "text": str}
        return functions[op](target)


def _said(error: BaseException) -> str:
    try:
        return str(error)[:200]
    except BaseException as e:  # of the program's own making
        return f"its text cannot be had: {type(e).__name__}"


def _found(module: types.ModuleType, name: str) -> Any:
    """A function of the program; where it has none of the name, a method of its class Solution."""
    if not hasattr(module, name) and hasattr(module, "Solution"):
        return getattr(module.Solution(), name)
    return getattr(module, name)


class Judge:
    """Runs the tests, and reports each in a line on the standard output, whatever the tests print.

    The first line says that the tests are ready: what fails before it is their fault, what fails after it the program's.
    """

    def __init__(self, peer: Peer, out: IO[str], test_s: float) -> None:
        """`test_s`: seconds for each test, and for loading the program."""
        self._peer = peer
        self._out = out
        self._test_s = test_s

    def run(self, code: str, tests: dict[str, Any], first: int = 0, partial: bool = True) -> None:
        """The tests from `first` on, until the program answers no more; without `partial` until one fails.

        See `code.code_tests` for what `tests` holds.
        """
        space: dict[str, Any] = {"__name__": "tests"}
        exec(compile(tests["setup"], "<setup>", "exec"), space)  # noqa: S102 - the data set's, in the sandbox
        sources = [compile(s, f"<test {i}>", "exec") for i, s in enumerate(tests["asserts"])]
        checks: list[Callable[[], None]] = [functools.partial(exec, source, space) for source in sources]
        checks += [functools.partial(self._call, **call) for call in tests["calls"]]
        under_test = functions_under_test(tests, space)
        signal.signal(signal.SIGALRM, self._late)
        self._say({"ready": True})
        why, text = self._verdict(lambda: self._load(code, space, tests, under_test))
        if why:
            self._report(first, "crash" if why == "wrong" else why, text, "nothing")
            return
        for i in range(first, len(checks)):
            why, text = self._verdict(checks[i])
            self._report(i, why, text, "session" if self._peer.ended else "")
            if self._peer.ended or why == "unfit" or (why and not partial):
                return

    def _verdict(self, check: Callable[[], None]) -> tuple[str | None, str]:
        """What is wrong with a test, None if nothing, and what there is to say of it; within its time."""
        try:
            with self._limit():
                verdict = _outcome(check)
        except BaseException as e:  # not its text, which may be the program's to find
            verdict = "crash", type(e).__name__
        return self._peer.ended or verdict  # whatever a test made of it

    @contextmanager
    def _limit(self) -> Iterator[None]:
        signal.setitimer(signal.ITIMER_REAL, self._test_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _late(self, number: int, frame: types.FrameType | None) -> None:
        raise self._peer.end("timeout", "")

    def _load(self, code: str, space: dict[str, Any], tests: dict[str, Any], under_test: set[str]) -> None:
        """Load the program, and give the tests what they use: its functions, and modules from the library itself."""
        defined = set(self._peer.ask("load", None, (code,)))
        wanted = under_test | (_names(tests["asserts"]) - set(space) - set(dir(builtins)))
        for name in sorted(wanted & sys.stdlib_module_names - under_test):
            space[name] = __import__(name)
            wanted.remove(name)
        for name in sorted(wanted & defined):
            space[name] = self._peer.ask("get", None, (name,))
            if isinstance(space[name], Handle):
                space[name]._tested = True
        for name in under_test - defined:
            space[name] = _missing(name)  # neither a stub of the set-up nor a builtin must pass for the program's

    def _call(self, function: str, args: list[Any], expected: Any, boxed: bool = False) -> None:
        tested = self._peer.ask("get", None, (function,))
        if isinstance(tested, Handle):
            tested._tested = True
        given = tested(*args)
        right = alike(given, expected) or (boxed and alike(given, expected[0]))
        assert right, f"{function}(...) gave {given!r:.100}, expected {expected!r:.100}"

    def _report(self, test: int, why: str | None, text: str, ends: str) -> None:
        self._say({"test": test, "why": why, "text": text[:300], "ends": ends})

    def _say(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()


def _outcome(check: Callable[[], None]) -> tuple[str | None, str]:
    try:
        check()
    except Unsendable as e:
        return "unfit", str(e)
    except AssertionError as e:
        return "wrong", str(e)
    except MemoryError:
        return "memory", ""
    except Exception as e:
        return "crash", f"{type(e).__name__}: {e}"
    return None, ""


def _missing(name: str) -> Callable[..., Any]:
    def missing(*args: Any, **kwargs: Any) -> Any:
        raise NameError(f"name {name!r} is not defined")

    return missing


def _names(sources: list[str]) -> set[str]:
    return {n.id for s in sources for n in ast.walk(ast.parse(s)) if isinstance(n, ast.Name)}


def functions_under_test(tests: dict[str, Any], space: dict[str, Any]) -> set[str]:
    """The names that can only be the program's: those on record, and one that the library has too but every assert calls.

    `assert sum(10, 15) == 6`, alone, asks for a `sum` of the program. Where the asserts use another name that only the program
    can have, as in `assert sorted(f(2)) == [2]`, it is that one which is tested, and `sorted` is the judge's.
    """
    names = set(tests["names"])
    library = set(dir(builtins)) | sys.stdlib_module_names
    calls = {_outermost(s) for s in tests["asserts"]}
    if names or len(calls) != 1 or not calls <= library - set(space):
        return names
    return calls if _names(tests["asserts"]) <= library | set(space) else names  # type: ignore[return-value]


def _outermost(source: str) -> str | None:
    """The function that an assert calls first: g of `assert not g(h(1)) == 2`. None where that is no plain call."""
    statement = ast.parse(source).body[:1]
    inner: ast.AST = statement[0].test if statement and isinstance(statement[0], ast.Assert) else ast.Pass()
    while True:
        if isinstance(inner, ast.UnaryOp):
            inner = inner.operand
        elif isinstance(inner, ast.Compare):
            inner = inner.left
        else:
            break
    return inner.func.id if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) else None


def alike(given: Any, expected: Any) -> bool:
    """Equality with what JSON can say: tuples are lists, and floats may differ by a millionth, whole numbers by nothing."""
    if isinstance(given, list | tuple) and isinstance(expected, list | tuple):
        return len(given) == len(expected) and all(map(alike, given, expected))
    if isinstance(given, dict) and isinstance(expected, dict):
        keys = {str(k): v for k, v in given.items()}
        return keys.keys() == {str(k) for k in expected} and all(alike(keys[str(k)], v) for k, v in expected.items())
    if isinstance(given, Handle) or isinstance(given, bool) != isinstance(expected, bool):
        return False
    if isinstance(given, int | float) and isinstance(expected, int | float):
        whole = isinstance(given, int) and isinstance(expected, int)
        return given == expected if whole else near(given, expected)
    if isinstance(expected, int | float) and not isinstance(expected, bool):
        return bool(given == expected)  # fractions and decimals
    return type(given) is type(expected) and bool(given == expected)


def near(given: float, expected: float) -> bool:
    """Whether two numbers are equal, or finite and a millionth apart: of 1, or of what is expected where that is more."""
    if given == expected:
        return True
    try:
        apart, size = abs(float(given) - float(expected)), abs(float(expected))
    except OverflowError:  # a whole number that is larger than any float
        return False
    # Without a bound on the size everything finite would be near infinity.
    return math.isfinite(size) and apart <= _TOLERANCE * max(1.0, size)


def main() -> None:
    """`guest.py candidate FD`, or `guest.py judge FD` with the code and the tests as JSON on the standard input."""
    sys.set_int_max_str_digits(0)
    with socket.socket(fileno=int(sys.argv[2])) as line, line.makefile("rw", encoding="utf-8", newline="\n") as stream:
        if sys.argv[1] == "candidate":
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            Candidate(stream).serve()
        else:
            work = json.load(sys.stdin)
            out = os.fdopen(os.dup(1), "w", encoding="utf-8")
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            peer = Peer(stream)
            Judge(peer, out, work.pop("test_s")).run(**work)
            sys.exit(1 if peer.ended else 0)  # has whoever watches both look for how the candidate ended


if __name__ == "__main__":
    main()
