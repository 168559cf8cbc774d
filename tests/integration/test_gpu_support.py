"""The measurements of the checks on GPUs, on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.gpu_support import norms_agree, one_step
from tests.integration.learner_support import LORA, make_model, run_ranks

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_a_step_tells_what_it_moved_and_ranks_of_a_sequence_group_agree(tmp_path: Path) -> None:
    model = str(make_model(tmp_path / "model"))
    steps = run_ranks(one_step, 2, model, {**LORA, "learner__sequence_parallel": 2})
    norms_agree(steps, steps[0], within=1e-6)
    for step in steps:
        assert any("embed_tokens" in name for name in step["kept"])
        assert all("proj" in name for name in step["moved"])
        assert len(step["moved"]) > 0
