"""A run killed at any point loses nothing that was acknowledged and trains nothing twice; see ledger_crash.py."""

from __future__ import annotations

import pytest

from tests.unit.ledger_support import faults_survived


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("mode", "at_least"), [("statements", 150), ("log", 40), ("checkpoint", 10)])
def test_killed_anywhere_a_run_resumes_whole(mode: str, at_least: int) -> None:
    assert faults_survived("ledger_crash", mode) >= at_least
