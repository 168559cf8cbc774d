"""Presets: the columns and parameters of well-known data sets, by name (`preset: gsm8k` on a source)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from r1ray.config.schema import SourceConfig
from r1ray.errors import ConfigError
from r1ray.util.hints import nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Columns and parameters of one data set. Values that the source sets itself take precedence.

    docs/data.md lists the columns that a row of each has.
    """

    columns: Mapping[str, str]  # field -> column, or path of one
    params: Mapping[str, Any] = field(default_factory=dict)


_TESTS = {"answer_contains": '"inputs"'}
"""Rows without tests are dropped."""

PRESETS: dict[str, Preset] = {
    "gsm8k": Preset(columns={"prompt": "question", "answer": "answer"}, params={"answer_after": "####"}),
    "math": Preset(columns={"prompt": "problem", "answer": "solution"}),
    "dapo_17k": Preset(columns={"messages": "prompt", "answer": "reward_model.ground_truth", "id": "extra_info.index"}),
    "numina_math": Preset(
        columns={"prompt": "problem", "answer": "solution"},
        params={"answer_contains": "\\boxed{"},  # proofs have no final answer
    ),
    "deepscaler": Preset(columns={"prompt": "problem", "answer": "answer"}),
    "livecodebench": Preset(
        columns={"prompt": "question_content", "answer": "public_test_cases", "id": "question_id"},
        params={"answer_contains": '"testtype": "stdin"'},  # tests of functions need a name from `metadata`
    ),
    "apps": Preset(columns={"prompt": "question", "answer": "input_output", "id": "problem_id"}, params=_TESTS),
    "taco": Preset(columns={"prompt": "question", "answer": "input_output"}, params=_TESTS),
}


def with_preset(source: SourceConfig) -> SourceConfig:
    """Return the source with the columns and parameters of its preset filled in.

    Raises ConfigError for an unknown preset, and for a synthetic source.
    """
    if source.preset is None:
        return source
    if source.preset not in PRESETS:
        raise ConfigError(
            f"the source {source.name}: preset: expected one of {', '.join(PRESETS)}, got {source.preset!r}; "
            f"{nearest(source.preset, PRESETS)}"
        )
    if source.kind == "synthetic":
        raise ConfigError(f"the source {source.name}: preset: only for jsonl, parquet and hf, got kind = synthetic")
    preset = PRESETS[source.preset]
    question = {"prompt", "messages"}
    columns = {k: v for k, v in preset.columns.items() if k not in question or not question & set(source.columns)}
    return replace(
        source, preset=None, columns={**columns, **source.columns}, params={**preset.params, **source.params}
    )
