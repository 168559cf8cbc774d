"""Checkpoints and records whose writer is killed, or fails,
at any point are whole or absent; see checkpoint_crash.py.
"""

from __future__ import annotations

import pytest

from tests.unit.ledger_support import faults_survived


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("mode", "at_least"),
    [
        pytest.param("checkpoint-kill", 120, marks=pytest.mark.slow),
        ("checkpoint-torn", 25),
        pytest.param("checkpoint-fail", 120, marks=pytest.mark.slow),
        ("record-kill", 12),
        ("record-fail", 20),
    ],
)
def test_killed_or_failing_anywhere_it_is_whole_or_absent(mode: str, at_least: int) -> None:
    assert faults_survived("checkpoint_crash", mode) >= at_least
