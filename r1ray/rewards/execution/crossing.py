"""Protocol between the judge and the candidate of guest.py: lines of JSON over a socket.

Runs inside the sandbox on a bare interpreter: standard library only. Plain data travels by value.
Any other object stays in the candidate, and the judge gets a handle to it.

    judge:      {"op": "call", "on": 0, "args": [{"int": "0x2"}], "kwargs": {}}
    candidate:  {"value": {"int": "0x4"}}    or    {"raised": "ValueError", "text": "no"}
"""

from __future__ import annotations

import builtins
import enum
import importlib
import json
import sys
from collections.abc import Callable
from typing import IO, Any


class Op(enum.Enum):
    """What the judge can request. `on` is the object that a request is about; args and kwargs are values."""

    LOAD = "load"  # args: code, whether it may use LeetCode's names -> names of the program
    GET = "get"  # args: name -> the program's object of that name
    CALL = "call"
    GET_ATTRIBUTE = "get_attribute"  # args: name
    SET_ATTRIBUTE = "set_attribute"  # args: name, value
    GET_ITEM = "get_item"  # args: key
    SET_ITEM = "set_item"  # args: key, value
    IS_INSTANCE = "is_instance"  # on: a class; args: an object
    ITERATE = "iterate"
    LENGTH = "length"
    TRUTH = "truth"
    TEXT = "text"


class CandidateGone(BaseException):
    """The candidate no longer answers: its process ended, or the test ran out of time.

    Not an Exception, so that a test which expects an exception does not mistake this for it.
    """


class UnsendableError(Exception):
    """A test passes the program an object that cannot travel, such as a function of its own."""


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
"""(module, type) -> arguments that make an equal value. Exact types only: a subclass may define its own `==`."""


def encode(value: Any, objects: list[Any] | None) -> Any:
    """Encode a value as JSON: plain data by value, tagged by type; builtin types by name.

    The candidate keeps any other object in `objects` and sends its index there. The judge has no
    such list: it sends classes and functions of the standard library by name, and raises UnsendableError
    for any other object.
    """
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        return {"int": hex(int(value))}
    for name, kind in _PLAIN:
        if isinstance(value, kind):  # iterates as the plain type does, whatever a subclass overrides
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
    if _is_builtin_type(value):
        return {"library": ["builtins", value.__name__]}
    if objects is None:
        if path := _library_path(value):
            return {"library": path}
        raise UnsendableError(f"the tests pass a {type(value).__name__} to the program, which cannot be sent to it")
    objects.append(value)
    return {"object": len(objects) - 1}


def decode(raw: Any, link: Callable[[str, int], Any], *, trusted: bool = False) -> Any:
    """Decode what `encode` returned.

    `link(tag, index)` resolves the two kinds of reference to an object. `trusted`: the sender is
    the judge, which may name any object of the standard library; a candidate may only name builtin
    types.
    """
    if not isinstance(raw, dict):
        return raw
    ((tag, inner),) = raw.items()
    if tag == "int":
        return int(inner, 16)
    if tag in ("list", "tuple", "set", "frozenset"):
        return getattr(builtins, tag)(decode(v, link, trusted=trusted) for v in inner)
    if tag == "dict":
        return {decode(k, link, trusted=trusted): decode(v, link, trusted=trusted) for k, v in inner}
    if tag == "bytes":
        return bytes.fromhex(inner)
    if tag == "complex":
        return complex(*inner)
    if tag == "library":
        module, name = inner
        if not trusted and not (module == "builtins" and _is_builtin_type(getattr(builtins, name))):
            raise ValueError("a candidate may only name builtin types")
        return _find(module, name)
    module, _, name = tag.partition(".")
    if (module, name) in _LIBRARY:
        kind = getattr(importlib.import_module(module), name)
        return getattr(kind, "fromisoformat", kind)(*(decode(v, link, trusted=trusted) for v in inner))
    return link(tag, inner)


def _is_builtin_type(value: Any) -> bool:
    return type(value) is type and getattr(builtins, value.__name__, None) is value


def _library_path(value: Any) -> list[str] | None:
    """[module, qualified name] of a class or function of the standard library; None for any other object."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not (isinstance(module, str) and isinstance(name, str)):
        return None
    if module != "builtins" and module.partition(".")[0] not in sys.stdlib_module_names:
        return None
    try:
        return [module, name] if _find(module, name) is value else None
    except (ImportError, AttributeError):
        return None


def _find(module: str, name: str) -> Any:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


class Peer:
    """The judge's connection to the candidate."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.ended: tuple[str, str] | None = None
        """Why the candidate no longer answers: (crash or timeout, details). None while it does."""

    def end(self, why: str, text: str) -> CandidateGone:
        """Mark the candidate as gone. Returns the exception for the caller to raise."""
        self.ended = self.ended or (why, text)
        return CandidateGone(text)

    def request(self, op: Op, on: int | None = None, *args: Any, **kwargs: Any) -> Any:
        """Send one request and wait for its reply.

        Raises what the candidate raised, if that is a builtin exception, and CandidateGone if the
        candidate has ended.
        """
        message: dict[str, Any] = {"op": op.value, "on": on, "args": [encode(a, None) for a in args]}
        message["kwargs"] = {k: encode(v, None) for k, v in kwargs.items()}
        if self.ended:
            raise CandidateGone(self.ended[1])
        try:
            self._stream.write(json.dumps(message) + "\n")
            self._stream.flush()
            line = self._stream.readline()
        except OSError as e:
            raise self.end("crash", "the program ended before its tests did") from e
        except UnicodeDecodeError as e:
            raise self.end("crash", "the program wrote to the judge's socket") from e
        if not line.endswith("\n"):
            raise self.end("crash", "the program ended before its tests did")
        try:
            reply = json.loads(line)
            if "raised" not in reply:
                return decode(reply["value"], lambda tag, index: Handle(self, int(index)))
            name, text = str(reply["raised"]), str(reply["text"])
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as e:
            raise RuntimeError("the program wrote to the judge's socket") from e
        raise _raised(name, text)


def _raised(name: str, text: str) -> Exception:
    """The exception that the candidate raised, or a RuntimeError that names it.

    StopIteration and its like become a RuntimeError: they would end a loop of the test, and skip
    the rest of it.
    """
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return RuntimeError(f"{name}: {text}")
    if issubclass(kind, StopIteration | StopAsyncIteration | UnicodeError):
        return RuntimeError(f"{name}: {text}")
    return kind(text)


class Handle:
    """An object inside the candidate, for tests to use like the object itself. It equals only itself."""

    _peer: Peer
    _id: int
    _tested: bool
    """Whether the tests test this object, rather than one that the program returned."""

    def __init__(self, peer: Peer, index: int) -> None:
        # Not plain assignments: `__setattr__` sets attributes of the object inside the candidate.
        self.__dict__.update(_peer=peer, _id=index, _tested=False)

    def mark_tested(self) -> None:
        """Note that this object is what the tests test."""
        self.__dict__["_tested"] = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the object inside the candidate and return its result, or a handle of it."""
        try:
            return self._peer.request(Op.CALL, self._id, *args, **kwargs)
        except UnsendableError as e:
            if self._tested:
                raise
            raise TypeError(str(e)) from e

    def __getattr__(self, name: str) -> Any:
        return self._peer.request(Op.GET_ATTRIBUTE, self._id, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._request_or_type_error(Op.SET_ATTRIBUTE, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._request_or_type_error(Op.GET_ITEM, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._request_or_type_error(Op.SET_ITEM, key, value)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, Handle) and bool(self._peer.request(Op.IS_INSTANCE, self._id, instance))

    def __iter__(self) -> Any:
        return iter(self._peer.request(Op.ITERATE, self._id))

    def __len__(self) -> int:
        return int(self._peer.request(Op.LENGTH, self._id))

    def __bool__(self) -> bool:
        return bool(self._peer.request(Op.TRUTH, self._id))

    def __str__(self) -> str:
        return str(self._peer.request(Op.TEXT, self._id))

    def _request_or_type_error(self, op: Op, *args: Any) -> Any:
        """Send a request about this object; if an argument cannot travel, raise TypeError as Python would."""
        try:
            return self._peer.request(op, self._id, *args)
        except UnsendableError as e:
            raise TypeError(str(e)) from e
