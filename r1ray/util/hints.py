"""What may have been meant by a name that does not exist; for the messages that refuse it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that looks most like `name`; None where none does."""
    close = difflib.get_close_matches(name, list(choices), n=1)
    return close[0] if close else None


def nearest(name: str, choices: Iterable[str]) -> str:
    """`did you mean math?`, or what there is."""
    names = list(choices)
    found = closest(name, names)
    return f"did you mean {found}?" if found else f"there are {', '.join(names) or 'none'}"


def suggestion(name: str, choices: Iterable[str]) -> str:
    """` (did you mean 'math'?)`, or nothing, for a message that goes on."""
    found = closest(name, choices)
    return f" (did you mean {found!r}?)" if found else ""
