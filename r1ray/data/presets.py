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
    """Columns and parameters of one data set. Values that the source sets itself take precedence."""

    columns: Mapping[str, str]  # field -> column, or path of one
    params: Mapping[str, Any] = field(default_factory=dict)
    expects: str  # the shape of a row, for people


PRESETS: dict[str, Preset] = {
    "gsm8k": Preset(
        columns={"prompt": "question", "answer": "answer"},
        params={"answer_after": "####"},
        expects="question; answer that ends with `#### 18`",
    ),
    "math": Preset(
        columns={"prompt": "problem", "answer": "solution"},
        expects="problem; solution with its answer in \\boxed{}",
    ),
    "dapo_17k": Preset(
        columns={"messages": "prompt", "answer": "reward_model.ground_truth", "id": "extra_info.index"},
        expects="prompt: a chat; reward_model: {ground_truth, style}; extra_info: {index}",
    ),
    "numina_math": Preset(
        columns={"prompt": "problem", "answer": "solution"},
        params={"answer_contains": "\\boxed{"},  # proofs have no final answer
        expects="problem; solution; messages (not read). Rows without \\boxed{} in the solution are dropped",
    ),
    "deepscaler": Preset(
        columns={"prompt": "problem", "answer": "answer"},
        expects="problem; answer; solution (not read)",
    ),
    "livecodebench": Preset(
        columns={"prompt": "question_content", "answer": "public_test_cases", "id": "question_id"},
        params={"answer_contains": '"testtype": "stdin"'},  # tests of functions need a name from `metadata`
        expects="question_content; public_test_cases: JSON text; question_id. Only public tests on standard input",
    ),
    "apps": Preset(
        columns={"prompt": "question", "answer": "input_output", "id": "problem_id"},
        params={"answer_contains": '"inputs"'},
        expects="problem_id; question; input_output: JSON text. Rows without tests are dropped",
    ),
    "taco": Preset(
        columns={"prompt": "question", "answer": "input_output"},
        params={"answer_contains": '"inputs"'},
        expects="question; input_output: JSON text. Rows without tests are dropped",
    ),
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
