"""Arguments of the engine, against those of the installed vLLM."""

from __future__ import annotations

from typing import Any

import pytest

from r1ray.config.schema import Config
from r1ray.preflight.engine_keys import engine_key_problems, quantization_methods


def found(**extra: Any) -> dict[str, str]:
    config = Config()
    config.rollout.engine.extra = extra
    return {p.key: f"{p.message}; {p.fix}" for p in engine_key_problems(config)}


@pytest.mark.parametrize(
    ("extra", "key", "text"),
    [
        ({"quantization": "fp9"}, "quantization", "no quantization of the installed vLLM; did you mean fp8?"),
        ({"quantization": "fp8_per_blok"}, "quantization", "did you mean fp8_per_block?"),
        ({"quantization": "zzz"}, "quantization", "one of awq, "),
        ({"blok_size": 16}, "blok_size", "is no argument of vLLM's EngineArgs; did you mean block_size?"),
    ],
)
def test_what_vllm_lacks_is_named_with_what_it_has(extra: dict[str, Any], key: str, text: str) -> None:
    problems = found(**extra)
    assert problems.keys() == {f"rollout.engine.extra.{key}"}
    assert text in problems[f"rollout.engine.extra.{key}"]


def test_what_vllm_has_is_no_problem() -> None:
    assert {"fp8", "fp8_per_block", "gptq", "compressed-tensors"} <= set(quantization_methods())
    assert found(quantization="gptq", block_size=16) == {}
