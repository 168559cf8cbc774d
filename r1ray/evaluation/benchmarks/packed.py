"""Read the tests of LiveCodeBench: JSON; the private ones are JSON in a pickled string, compressed, in base 64.

Unpickling an untrusted file can run any code. This module only disassembles the pickle and executes
none of its instructions; anything but a single string is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import pickletools
import zlib
from typing import Any

from r1ray.errors import DataError

MAX_BYTES = 1 << 28
"""Maximum size of the unpacked tests of one problem."""
_TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_AROUND = ("PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP")


def unpacked(packed: str) -> list[dict[str, Any]]:
    """The tests: [{"input", "output", "testtype"}, ...]. Raises DataError for anything else."""
    try:
        tests = json.loads(packed if packed.lstrip()[:1] == "[" else _text(_inflated(packed)))
    except (ValueError, RecursionError) as e:
        raise DataError(f"the tests cannot be read: {e}") from e
    if not isinstance(tests, list) or not all(isinstance(t, dict) and {"input", "output"} <= set(t) for t in tests):
        raise DataError("the tests are no list of {input, output}")
    return tests


def _inflated(packed: str) -> bytes:
    try:
        stream = zlib.decompressobj()
        data = stream.decompress(base64.b64decode(packed, validate=True), MAX_BYTES)
    except (binascii.Error, zlib.error) as e:
        raise DataError(f"the tests are neither JSON nor compressed: {e}") from e
    if not stream.eof:
        raise DataError(f"the tests are cut off, or more than {MAX_BYTES >> 20} MiB")
    return data


def _text(pickled: bytes) -> str:
    texts = []
    for instruction, argument, _ in pickletools.genops(pickled):
        if instruction.name in _TEXTS:
            texts.append(argument)
        elif instruction.name not in _AROUND:
            raise DataError(f"the tests hold the pickle instruction {instruction.name}: only a text may be there")
    if len(texts) != 1:
        raise DataError(f"the tests hold {len(texts)} texts instead of one")
    return str(texts[0])
