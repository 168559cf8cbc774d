"""Runs inside sandboxes, by a bare interpreter: the standard library only, no import of r1ray.

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
import os
import socket
import sys
import types
from typing import IO, Any

_MAX_ITEMS = 100_000


class Gone(Exception):
    """The candidate's process has ended."""


class Unsendable(Exception):
    """A test hands the candidate something that is no plain data."""


def encode(value: Any, objects: list[Any] | None) -> Any:
    """A value as JSON: plain data by value, tagged by type; anything else stays in `objects`, by its number there.

    Raises Unsendable for anything else where there is no such list.
    """
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        return {"int": hex(int(value))}
    for name, kind in (("list", list), ("tuple", tuple), ("set", set), ("frozenset", frozenset)):
        if isinstance(value, kind):
            return {name: [encode(v, objects) for v in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(k, objects), encode(v, objects)] for k, v in dict.items(value)]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, Handle):
        return {"own": value._id}
    if objects is None:
        raise Unsendable(f"the tests hand over a {type(value).__name__}, which is no plain data")
    objects.append(value)
    return {"object": len(objects) - 1}


def decode(raw: Any, link: Any) -> Any:
    """The way back. `link`: what makes the two kinds of reference into objects."""
    if not isinstance(raw, dict):
        return raw
    ((tag, inner),) = raw.items()
    if tag == "int":
        return int(inner, 16)
    if tag in ("list", "tuple", "set", "frozenset"):
        return getattr(builtins, tag)(decode(v, link) for v in inner)
    if tag == "dict":
        return {decode(k, link): decode(v, link) for k, v in inner}
    if tag == "bytes":
        return bytes.fromhex(inner)
    if tag == "complex":
        return complex(*inner)
    return link(tag, inner)


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
                reply = {"raised": type(e).__name__, "text": str(e)[:200]}
            self._stream.write(json.dumps(reply) + "\n")
            self._stream.flush()

    def _do(self, op: str, on: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        link = lambda tag, inner: self._objects[inner]  # noqa: E731
        target: Any = None if on is None else self._objects[on]
        values = [decode(a, link) for a in args]
        if op == "load":
            exec(compile(values[0], "<solution>", "exec"), self._module.__dict__)  # noqa: S102 - what the sandbox is for
            return list(self._module.__dict__)
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


def _found(module: types.ModuleType, name: str) -> Any:
    """A function of the program; where it has none of the name, a method of its class Solution."""
    if not hasattr(module, name) and hasattr(module, "Solution"):
        return getattr(module.Solution(), name)
    return getattr(module, name)


class Peer:
    """The judge's line to the candidate."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def ask(self, op: str, on: int | None, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        """One request. Raises what the candidate raised, if Python has such an exception, and Gone where it has ended."""
        request: dict[str, Any] = {"op": op, "on": on, "args": [encode(a, None) for a in args]}
        request["kwargs"] = {k: encode(v, None) for k, v in (kwargs or {}).items()}
        try:
            self._stream.write(json.dumps(request) + "\n")
            self._stream.flush()
            line = self._stream.readline()
        except OSError as e:
            raise Gone from e
        if not line.endswith("\n"):
            raise Gone
        try:
            reply = json.loads(line)
            if "raised" not in reply:
                return decode(reply["value"], lambda tag, inner: Handle(self, int(inner)))
            name, text = str(reply["raised"]), str(reply["text"])
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise RuntimeError("the program wrote into the line to its judge") from e
        kind = getattr(builtins, name, None)
        known = isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError)
        raise kind(text) if known else RuntimeError(f"{name}: {text}")  # type: ignore[misc]


class Handle:
    """An object inside the candidate. It equals itself alone."""

    def __init__(self, peer: Peer, number: int) -> None:
        self._peer = peer
        self._id = number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._peer.ask("call", self._id, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return self._peer.ask("attribute", self._id, (name,))

    def __getitem__(self, key: Any) -> Any:
        return self._peer.ask("item", self._id, (key,))

    def __iter__(self) -> Any:
        return iter(self._peer.ask("iterate", self._id, ()))

    def __len__(self) -> int:
        return int(self._peer.ask("length", self._id, ()))

    def __bool__(self) -> bool:
        return bool(self._peer.ask("truth", self._id, ()))

    def __str__(self) -> str:
        return str(self._peer.ask("text", self._id, ()))


class Judge:
    """Runs the tests, and reports each in a line on the standard output, whatever the tests print."""

    def __init__(self, peer: Peer, out: IO[str]) -> None:
        self._peer = peer
        self._out = out

    def run(self, code: str, tests: dict[str, Any]) -> None:
        """See `programs.FunctionTests` for what `tests` holds."""
        space: dict[str, Any] = {"__name__": "tests"}
        exec(compile(tests["setup"], "<setup>", "exec"), space)  # noqa: S102 - the data set's, in the sandbox
        sources = [compile(s, f"<test {i}>", "exec") for i, s in enumerate(tests["asserts"])]
        checks = [functools.partial(exec, source, space) for source in sources]
        checks += [functools.partial(self._call, **call) for call in tests["calls"]]
        try:
            defined = self._peer.ask("load", None, (code,))
        except Exception as e:
            self._report(0, "crash", f"{type(e).__name__}: {e}", stop=True)
            return
        self._fill(space, tests, set(defined))
        for i, check in enumerate(checks):
            try:
                check()
            except Unsendable as e:
                self._report(i, "unfit", str(e), stop=True)
                return
            except Gone:
                self._report(i, "crash", "the program ended before its tests did", stop=True)
                return
            except AssertionError as e:
                self._report(i, "wrong", str(e))
            except Exception as e:
                self._report(i, "crash", f"{type(e).__name__}: {e}")
            else:
                self._report(i, None, "")

    def _fill(self, space: dict[str, Any], tests: dict[str, Any], defined: set[str]) -> None:
        """Give the tests what they use: the functions under test from the candidate, modules from the library itself."""
        used = {n.id for s in tests["asserts"] for n in ast.walk(ast.parse(s)) if isinstance(n, ast.Name)}
        wanted = set(tests["names"]) | (used - set(space) - set(dir(builtins)))
        for name in sorted(wanted & sys.stdlib_module_names - set(tests["names"])):
            space[name] = __import__(name)
            wanted.remove(name)
        for name in sorted(wanted & defined):
            space[name] = self._peer.ask("get", None, (name,))
        for name in set(tests["names"]) - defined:
            space.pop(name, None)  # a stub of the set-up must not pass for the program's function

    def _call(self, function: str, args: list[Any], expected: Any) -> None:
        given = self._peer.ask("get", None, (function,))(*args)
        assert alike(given, expected), f"{function}(...) gave {given!r:.100}, expected {expected!r:.100}"

    def _report(self, test: int, why: str | None, text: str, *, stop: bool = False) -> None:
        self._out.write(json.dumps({"test": test, "why": why, "text": text[:300], "stop": stop}) + "\n")
        self._out.flush()


def alike(given: Any, expected: Any) -> bool:
    """Equality with what JSON can say: tuples are lists, and floats may differ by a millionth."""
    if isinstance(given, list | tuple) and isinstance(expected, list | tuple):
        return len(given) == len(expected) and all(map(alike, given, expected))
    if isinstance(given, dict) and isinstance(expected, dict):
        keys = {str(k): v for k, v in given.items()}
        return keys.keys() == {str(k) for k in expected} and all(alike(keys[str(k)], v) for k, v in expected.items())
    if isinstance(given, Handle) or isinstance(given, bool) != isinstance(expected, bool):
        return False
    if isinstance(given, int | float) and isinstance(expected, int | float):
        return given == expected or abs(given - expected) <= 1e-6 * max(1.0, abs(expected))
    return type(given) is type(expected) and bool(given == expected)


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
            Judge(Peer(stream), out).run(work["code"], work["tests"])


if __name__ == "__main__":
    main()
