"""The two processes that run tests which call functions: the judge and the candidate, each in a sandbox of its own.

Runs on a bare interpreter: the standard library and the modules beside this file that `programs.py`
copies only. The code under test shares nothing with the code that tests it:

    judge (the data set's tests) ----- name, arguments ----> candidate (the model's code)
      | {"test": 3, "why": null}   <--- plain data ---------
      v stdout

The candidate never sees a test, only arguments. It returns plain data of built-in types, which the
judge compares. Other objects stay in the candidate; the judge gets a handle (see crossing.py).
"""

from __future__ import annotations

import builtins
import functools
import json
import os
import signal
import socket
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from r1ray.rewards.execution.comparison import alike
from r1ray.rewards.execution.crossing import Handle, Op, Peer, UnsendableError, decode, encode
from r1ray.rewards.execution.namespaces import BUILTINS, functions_under_test, split_setup, used_names

_MAX_ITEMS = 100_000


class Candidate:
    """Holds the model's code; answers one request a line."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._objects: list[Any] = []
        self._module = types.ModuleType("solution")
        sys.modules["solution"] = self._module  # dataclasses and others look their module up

    def serve(self) -> None:
        """Answer requests until the judge closes the connection."""
        for line in self._stream:
            try:
                reply = {"value": encode(self._execute(**json.loads(line)), self._objects)}
            except BaseException as e:  # SystemExit, too, is an answer
                reply = {"raised": type(e).__name__, "text": _text_of(e)}
            self._stream.write(json.dumps(reply) + "\n")
            self._stream.flush()

    def _execute(self, op: str, on: int | None, args: list[Any], kwargs: dict[str, Any]) -> Any:
        target: Any = None if on is None else self._objects[on]
        values = [self._decode(a) for a in args]
        match Op(op):
            case Op.LOAD:
                return self._load(*values)
            case Op.GET:
                return _find(self._module, values[0])
            case Op.CALL:
                return target(*values, **{k: self._decode(v) for k, v in kwargs.items()})
            case Op.GET_ATTRIBUTE:
                return getattr(target, values[0])
            case Op.SET_ATTRIBUTE:
                return setattr(target, *values)
            case Op.GET_ITEM:
                return target[values[0]]
            case Op.SET_ITEM:
                target[values[0]] = values[1]
                return None
            case Op.IS_INSTANCE:
                return isinstance(values[0], target)
            case Op.ITERATE:
                return [item for item, _ in zip(target, range(_MAX_ITEMS), strict=False)]
            case Op.LENGTH:
                return len(target)
            case Op.TRUTH:
                return bool(target)
            case Op.TEXT:
                return str(target)

    def _decode(self, raw: Any) -> Any:
        return decode(raw, lambda tag, index: self._objects[index], trusted=True)

    def _load(self, code: str, as_on_leetcode: bool) -> list[str]:
        """Execute the program. Returns the names that it defines.

        `as_on_leetcode`: the names of leetcode.py are there beside the builtins, for the program to
        use or redefine.
        """
        space = self._module.__dict__
        if as_on_leetcode:
            from r1ray.rewards.execution import leetcode

            leetcode.raise_recursion_limit()
            space["__builtins__"] = {**leetcode.names(), **vars(builtins)}
        exec(compile(code, "<solution>", "exec", dont_inherit=True), space)  # noqa: S102 - what the sandbox is for
        return [name for name in space if isinstance(name, str)]


def _text_of(error: BaseException) -> str:
    try:
        return str(error)[:200]
    except BaseException as e:  # raised by the program's own __str__
        return f"its message cannot be shown: {type(e).__name__}"


def _find(module: types.ModuleType, name: str) -> Any:
    """A function of the program; if it has none of that name, the method of its class Solution."""
    if not hasattr(module, name) and hasattr(module, "Solution"):
        return getattr(module.Solution(), name)
    return getattr(module, name)


class Judge:
    """Runs the tests and reports each in one line on standard output, even if the tests print.

    The first line says that the tests are ready. A failure before it is the fault of the tests, a later one of the
    program.
    """

    def __init__(self, peer: Peer, out: IO[str], test_s: float) -> None:
        """`test_s`: seconds for each test, and for loading the program."""
        self._peer = peer
        self._out = out
        self._test_s = test_s

    def run(self, code: str, tests: dict[str, Any], first: int = 0, partial: bool = True) -> None:
        """Run the tests from `first` on until the candidate is gone; without `partial` until one fails.

        See `code.code_tests` for the contents of `tests`.
        """
        early, late, awaited = split_setup(tests["setup"])
        space: dict[str, Any] = {"__name__": "tests"}
        exec(compile(early, "<setup>", "exec", dont_inherit=True), space)  # noqa: S102 - the data set's, in the sandbox
        asserts: list[str] = tests["asserts"]
        sources = [compile(s, f"<test {i}>", "exec", dont_inherit=True) for i, s in enumerate(asserts)]
        under_test = functions_under_test(asserts, tests["names"], space)
        wanted = under_test | ((used_names(asserts) | awaited) - set(space) - BUILTINS)
        late_setup = compile(late, "<setup>", "exec", dont_inherit=True)
        checks: list[Callable[[], None]] = [functools.partial(exec, source, space) for source in sources]
        checks += [functools.partial(self._call, **call) for call in tests["calls"]]

        def load() -> None:
            self._load(code, space, under_test, wanted, as_on_leetcode=bool(tests["calls"]))
            exec(late_setup, space)  # noqa: S102 - see above

        signal.signal(signal.SIGALRM, self._on_alarm)
        self._write({"ready": True})
        why, text = self._verdict(load)
        if why:
            self._report(first, "crash" if why == "wrong" else why, text, "nothing")
            return
        for i in range(first, len(checks)):
            why, text = self._verdict(checks[i])
            self._report(i, why, text, "session" if self._peer.ended else "")
            if self._peer.ended or why == "unfit" or (why and not partial):
                return

    def _verdict(self, check: Callable[[], None]) -> tuple[str | None, str]:
        """Run a check within its time. Returns what is wrong, or None, and details."""
        try:
            with self._limit():
                verdict = _outcome(check)
        except BaseException as e:  # without its text, which the program may have to compute
            verdict = "crash", type(e).__name__
        return self._peer.ended or verdict  # even if the test caught CandidateGone

    @contextmanager
    def _limit(self) -> Iterator[None]:
        signal.setitimer(signal.ITIMER_REAL, self._test_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _on_alarm(self, number: int, frame: types.FrameType | None) -> None:
        raise self._peer.end("timeout", "")

    def _load(
        self, code: str, space: dict[str, Any], under_test: set[str], wanted: set[str], *, as_on_leetcode: bool
    ) -> None:
        """Load the program, and put into `space` what the tests use of it.

        Modules of the standard library that the tests use without an import are the judge's own.
        """
        defined = set(self._peer.request(Op.LOAD, None, code, as_on_leetcode))
        for name in sorted(wanted & sys.stdlib_module_names - under_test):
            space[name] = __import__(name)
            wanted.remove(name)
        for name in sorted(wanted & defined):
            space[name] = self._get(name)
        for name in under_test - defined:
            space[name] = _missing(name)  # not the stub of the set-up, and not a builtin

    def _get(self, name: str) -> Any:
        tested = self._peer.request(Op.GET, None, name)
        if isinstance(tested, Handle):
            tested.mark_tested()
        return tested

    def _call(self, function: str, args: list[Any], expected: Any, boxed: bool = False) -> None:
        given = self._get(function)(*args)
        right = alike(given, expected) or (boxed and alike(given, expected[0]))
        assert right, f"{function}(...) gave {given!r:.100}, expected {expected!r:.100}"

    def _report(self, test: int, why: str | None, text: str, ends: str) -> None:
        self._write({"test": test, "why": why, "text": text[:300], "ends": ends})

    def _write(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()


def _outcome(check: Callable[[], None]) -> tuple[str | None, str]:
    try:
        check()
    except UnsendableError as e:
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


def _decoded_call(call: dict[str, Any]) -> dict[str, Any]:
    """A call whose arguments and result are plain again, not as `code.as_json` encoded them."""
    values = {key: decode(call[key], lambda tag, index: None, trusted=True) for key in ("args", "expected")}
    return {**call, **values}


def main() -> None:
    """`guest.py candidate FD`, or `guest.py judge FD` with the code and the tests as JSON on the standard input."""
    with socket.socket(fileno=int(sys.argv[2])) as line, line.makefile("rw", encoding="utf-8", newline="\n") as stream:
        if sys.argv[1] == "candidate":
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            Candidate(stream).serve()
        else:
            work = json.load(sys.stdin)
            work["tests"]["calls"] = [_decoded_call(call) for call in work["tests"]["calls"]]
            out = os.fdopen(os.dup(1), "w", encoding="utf-8")
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            peer = Peer(stream)
            Judge(peer, out, work.pop("test_s")).run(**work)
            sys.exit(1 if peer.ended else 0)  # makes `programs.py` look at how the candidate ended


if __name__ == "__main__":
    main()
