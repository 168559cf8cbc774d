"""Names of scoring failures: what an exception is called, and which failures are of the same kind."""

from __future__ import annotations

import re

from r1ray.errors import DataError, InfrastructureError, VerifierCrash
from r1ray.rewards.base import Sample

_QUOTED = re.compile(r"(?<!\w)(?:'(?:[^'\\]|\\.)*(?:'|$)|\"(?:[^\"\\]|\\.)*(?:\"|$))", re.DOTALL)
"""A quoted text; one that is cut off has no closing quote. An apostrophe inside a word opens none."""
_NUMBER = re.compile(r"\d[\d,._]*")
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)", re.DOTALL)
_MAX_ESCAPES = 2
"""Levels of `repr` around a text of the sample."""
_MIN_VERBATIM_CHARS = 8
"""A shorter text may occur in a message by chance."""
_MAX_KIND_CHARS = 200


def named(error: Exception) -> DataError | InfrastructureError:
    """The error by a name of r1ray's. Any other exception of a reward becomes a VerifierCrash of this sample alone."""
    if isinstance(error, DataError | InfrastructureError):
        return error
    return VerifierCrash(f"{type(error).__name__}: {error}")


def message(error: DataError | InfrastructureError, part: str) -> str:
    """The text of a failure of the reward `part`, as in `Score.error`: `VerifierCrash: accuracy: KeyError: 'x'`."""
    return f"{type(error).__name__}: {part}: {error}"


def kind(error: DataError | InfrastructureError, part: str, sample: Sample) -> str:
    """The text of a failure without what is the sample's own, as in `Score.error_kind`.

    Text of the sample becomes `...`: the response, answer, prompt or a message as a whole, and quoted text that occurs
    in one of them, also inside another quoted text (the text of a KeyError is its message in quotes). Numbers become
    `N`. So equal failures of different samples have equal texts. Example: DataError("no unit in '5 apples' (12 of 40)")
    of the reward `units` has the kind `DataError: units: no unit in ... (N of N)`.
    """
    parts = [sample.response, str(sample.answer), sample.prompt_id, *(m["content"] for m in sample.messages)]
    text = _without_quoted(str(error), "\n".join(parts))
    for whole in sorted(parts, key=len, reverse=True):
        if len(whole) >= _MIN_VERBATIM_CHARS:
            text = text.replace(whole, "...")
    return f"{type(error).__name__}: {part}: {_NUMBER.sub('N', text)}"[:_MAX_KIND_CHARS]


def _without_quoted(text: str, own: str) -> str:
    """`text` with `...` in the place of each quoted text that occurs in `own`."""

    def masked(quoted: re.Match[str]) -> str:
        outer = quoted[0]
        inner = outer[1:-1] if len(outer) > 1 and outer.endswith(outer[0]) else outer[1:]
        for _ in range(_MAX_ESCAPES):
            if inner in own:
                return "..."
            inner = _ESCAPE.sub(_unescaped, inner)
        if inner in own:
            return "..."
        rest = _without_quoted(inner, own)
        quote = outer[0] if rest == inner else '"'  # `repr` chose the other by the text that is gone
        return f"{quote}{rest}{quote}"

    return _QUOTED.sub(masked, text)


def _unescaped(escape: re.Match[str]) -> str:
    name = escape[1]
    return chr(int(name[1:], 16)) if len(name) > 1 else {"n": "\n", "t": "\t", "r": "\r"}.get(name, name)
