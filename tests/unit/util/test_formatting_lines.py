"""Long messages of other processes in one line."""

from __future__ import annotations

import pytest

from r1ray.util.formatting import one_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("killed", "killed"),
        (
            "1 validation error for EngineArgs\nmax_seqs\n  Extra inputs are not permitted [type=extra]",
            "1 validation error for EngineArgs max_seqs Extra inputs are not permitted [type=extra]",
        ),
        ("\x1b[36mray::start\x1b[39m\n  File x\n    raise\nValueError: b", "ray::start ... ValueError: b"),
        ("a\nb\nc\nd\ne", "a ... e"),
    ],
)
def test_short_messages_are_kept_and_tracebacks_are_cut(text: str, line: str) -> None:
    assert one_line(text) == line
