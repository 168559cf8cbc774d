"""What crosses over between the judge and the candidate of guest.py, as lines of JSON. The standard library only.

Plain data goes by value. Anything else stays in the candidate, and the judge gets a handle.
"""

from __future__ import annotations

import builtins
import importlib
import json
from collections.abc import Callable
from typing import IO, Any


class Gone(BaseException):
    """The candidate answers no more: its process has ended, or the time for the test is over.

    No Exception, so that a test that expects one does not take this for it.
    """


class Unsendable(Exception):
    """A test hands a function under test something that is no plain data."""


_PLAIN: tuple[tuple[str, Any], ...] = (("list", list), ("tuple", tuple), ("set", set), ("frozenset", frozenset))
_LIBRARY: dict[tuple[str, str], Callable[[Any], list[Any]]] = {
    ("builtins", "range"): lambda v: [v.start, v.stop, v.step],
    ("collections", "deque"): lambda v: [list(v), v.maxlen],
    ("decimal", "Decimal"): lambda v: [str(v)],
    ("fractions", "Fraction"): lambda v: [v.numerator, v.denominator],
    ("datetime", "timedelta"): lambda v: [v.days, v.seconds, v.microseconds],
    ("datetime", "date"): lambda v: [v.isoformat()],
    ("datetime", "time"): lambda v: [v.isoformat()],
    ("datetime", "datetime"): lambda v: [v.isoformat()],
}
"""Values of the standard library: module and type -> what to make an equal one of. Not of subclasses, whose == may differ."""


def encode(value: Any, objects: list[Any] | None) -> Any:
    """A value as JSON: plain data by value, tagged by type; anything else stays in `objects`, by its number there.

    Raises Unsendable for anything else where there is no such list.
    """
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        return {"int": hex(int(value))}
    for name, kind in _PLAIN:
        if isinstance(value, kind):  # what it holds, whatever a subclass says when it is asked
            return {name: [encode(v, objects) for v in kind.__iter__(value)]}
    if isinstance(value, dict):
        return {"dict": [[encode(k, objects), encode(v, objects)] for k, v in dict.items(value)]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, Handle):
        return {"own": value._id}
    origin = (type(value).__module__, type(value).__qualname__)
    if origin in _LIBRARY and getattr(importlib.import_module(origin[0]), origin[1]) is type(value):
        return {".".join(origin): [encode(v, objects) for v in _LIBRARY[origin](value)]}
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
    module, _, name = tag.partition(".")
    if (module, name) in _LIBRARY:
        kind = getattr(importlib.import_module(module), name)
        return getattr(kind, "fromisoformat", kind)(*(decode(v, link) for v in inner))
    return link(tag, inner)


class Peer:
    """The judge's line to the candidate."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.ended: tuple[str, str] | None = None
        """Why it answers no more, once it does not: crash or timeout, and what there is to say."""

    def end(self, why: str, text: str) -> Gone:
        """From now on it does not answer; to be raised."""
        self.ended = self.ended or (why, text)
        return Gone(text)

    def ask(self, op: str, on: int | None, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        """One request. Raises what the candidate raised, if Python has such an exception, and Gone where it has ended."""
        request: dict[str, Any] = {"op": op, "on": on, "args": [encode(a, None) for a in args]}
        request["kwargs"] = {k: encode(v, None) for k, v in (kwargs or {}).items()}
        if self.ended:
            raise Gone(self.ended[1])
        try:
            self._stream.write(json.dumps(request) + "\n")
            self._stream.flush()
            line = self._stream.readline()
        except OSError as e:
            raise self.end("crash", "the program ended before its tests did") from e
        except UnicodeDecodeError as e:
            raise self.end("crash", "the program wrote into the line to its judge") from e
        if not line.endswith("\n"):
            raise self.end("crash", "the program ended before its tests did")
        try:
            reply = json.loads(line)
            if "raised" not in reply:
                return decode(reply["value"], lambda tag, inner: Handle(self, int(inner)))
            name, text = str(reply["raised"]), str(reply["text"])
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as e:
            raise RuntimeError("the program wrote into the line to its judge") from e
        raise _raised(name, text)


def _raised(name: str, text: str) -> Exception:
    """What the candidate raised, or a RuntimeError that names it.

    The exceptions by which Python ends loops would end those of the test, and the rest of it would never be looked at.
    """
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return RuntimeError(f"{name}: {text}")
    if issubclass(kind, StopIteration | StopAsyncIteration | UnicodeError):
        return RuntimeError(f"{name}: {text}")
    return kind(text)


class Handle:
    """An object inside the candidate. It equals itself alone."""

    def __init__(self, peer: Peer, number: int) -> None:
        self._peer = peer
        self._id = number
        self._tested = False  # whether it is what the tests are of, and not something that a program came up with

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._peer.ask("call", self._id, args, kwargs)
        except Unsendable as e:
            if self._tested:
                raise
            raise TypeError(str(e)) from e

    def __getattr__(self, name: str) -> Any:
        return self._peer.ask("attribute", self._id, (name,))

    def __getitem__(self, key: Any) -> Any:
        try:
            return self._peer.ask("item", self._id, (key,))
        except Unsendable as e:
            raise TypeError(str(e)) from e

    def __iter__(self) -> Any:
        return iter(self._peer.ask("iterate", self._id, ()))

    def __len__(self) -> int:
        return int(self._peer.ask("length", self._id, ()))

    def __bool__(self) -> bool:
        return bool(self._peer.ask("truth", self._id, ()))

    def __str__(self) -> str:
        return str(self._peer.ask("text", self._id, ()))
