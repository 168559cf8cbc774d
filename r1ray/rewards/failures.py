"""Names of scoring failures: what an exception is called, and which failures are of the same kind."""

from __future__ import annotations

import re

from r1ray.errors import DataError, InfrastructureError, VerifierCrash
from r1ray.rewards.base import Sample

_QUOTED = re.compile(r"(?<!\w)(?:'(?:[^'\\]|\\.)*(?:'|$)|\"(?:[^\"\\]|\\.)*(?:\"|$))", re.DOTALL)
"""A quoted text; one that is cut off has no closing quote. An apostrophe inside a word opens none."""
_NUMBER = re.compile(r"\d[\d,._]*")
_MAX_KIND_CHARS = 200


def named(error: Exception) -> DataError | InfrastructureError:
    """The error by a name of r1ray's. Any other exception of a reward becomes a VerifierCrash of
    this sample alone.
    """
    if isinstance(error, DataError | InfrastructureError):
        return error
    return VerifierCrash(f"{type(error).__name__}: {error}")


def message(error: DataError | InfrastructureError, part: str) -> str:
    """The text of a failure of the reward `part`, as in `Score.error`: `VerifierCrash: accuracy:
    KeyError: 'x'`.
    """
    return f"{type(error).__name__}: {part}: {error}"


def kind(error: DataError | InfrastructureError, part: str, sample: Sample) -> str:
    """The text of a failure without what is the sample's own, as in `Score.error_kind`.

    Quoted text that occurs in the sample becomes `...`, and numbers become `N`, so that equal
    failures of different samples have equal texts. Example: DataError("no unit in '5 apples' (12 of
    40)") of the reward `units` has the kind `DataError: units: no unit in ... (N of N)`.
    """
    own = "\n".join([sample.response, str(sample.answer), sample.prompt_id, *(m["content"] for m in sample.messages)])

    def masked(quoted: re.Match[str]) -> str:
        text = quoted[0].strip("'\"")
        plain = text.replace(r"\n", "\n").replace(r"\t", "\t").replace("\\\\", "\\")
        return "..." if text in own or plain in own else quoted[0]

    text = _NUMBER.sub("N", _QUOTED.sub(masked, str(error)))
    return f"{type(error).__name__}: {part}: {text}"[:_MAX_KIND_CHARS]
