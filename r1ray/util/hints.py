"""Suggestions for a name that does not exist, as part of the message that refuses it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(name: str, choices: Iterable[str]) -> str | None:
    """Return the choice most similar to `name`; None if none is similar."""
    close = difflib.get_close_matches(name, list(choices), n=1)
    return close[0] if close else None


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return `did you mean math?`, or the list of names if none is similar."""
    names = list(choices)
    found = closest(name, names)
    return f"did you mean {found}?" if found else f"there are {', '.join(names) or 'none'}"


def suggestion(name: str, choices: Iterable[str]) -> str:
    """Return ` (did you mean 'math'?)`, or an empty string if no choice is similar."""
    found = closest(name, choices)
    return f" (did you mean {found!r}?)" if found else ""
