"""Published figures, shown beside results and never mixed with measured ones. Accuracies are shares.

Sources: v1 is arXiv 2501.12948v1, N the Nature version (s41586-025-09422-z).
"""

from __future__ import annotations

from typing import Any

_TABLE: tuple[tuple[str, str, dict[str, float]], ...] = (
    ("DeepSeek-R1-Zero", "v1", {"aime24": 71.0, "math500": 95.9, "gpqa_diamond": 73.3, "livecodebench": 50.0}),
    ("DeepSeek-R1-Zero", "N", {"aime24": 77.9}),
    ("DeepSeek-R1", "v1", {"aime24": 79.8, "math500": 97.3, "gpqa_diamond": 71.5, "livecodebench": 65.9}),
    ("R1-Distill-Qwen-1.5B", "v1", {"aime24": 28.9, "math500": 83.9, "gpqa_diamond": 33.8, "livecodebench": 16.9}),
    ("R1-Distill-Qwen-7B", "v1", {"aime24": 55.5, "math500": 92.8, "gpqa_diamond": 49.1, "livecodebench": 37.6}),
    ("R1-Distill-Qwen-14B", "v1", {"aime24": 69.7, "math500": 93.9, "gpqa_diamond": 59.1, "livecodebench": 53.1}),
    ("R1-Distill-Qwen-32B", "v1", {"aime24": 72.6, "math500": 94.3, "gpqa_diamond": 62.1, "livecodebench": 57.2}),
    ("R1-Distill-Llama-8B", "v1", {"aime24": 50.4, "math500": 89.1, "gpqa_diamond": 49.0, "livecodebench": 39.6}),
    ("R1-Distill-Llama-70B", "v1", {"aime24": 70.0, "math500": 94.5, "gpqa_diamond": 65.2, "livecodebench": 57.5}),
    ("R1-Zero-Qwen-32B", "v1", {"aime24": 47.0, "math500": 91.6, "gpqa_diamond": 55.0, "livecodebench": 40.2}),
)
_CONSENSUS = {  # cons@64 on AIME 2024
    ("DeepSeek-R1-Zero", "v1"): 86.7,
    ("DeepSeek-R1-Zero", "N"): 86.7,
    ("R1-Distill-Qwen-1.5B", "v1"): 52.7,
    ("R1-Distill-Qwen-7B", "v1"): 83.3,
    ("R1-Distill-Qwen-14B", "v1"): 80.0,
    ("R1-Distill-Qwen-32B", "v1"): 83.3,
    ("R1-Distill-Llama-8B", "v1"): 80.0,
    ("R1-Distill-Llama-70B", "v1"): 86.7,
    ("R1-Zero-Qwen-32B", "v1"): 60.0,
}


def published(benchmark: str) -> list[dict[str, Any]]:
    """Published figures of a benchmark: model, source, accuracy (pass@1) and, for AIME 2024, consensus (cons@64)."""
    rows = []
    for model, source, values in _TABLE:
        if benchmark in values:
            row: dict[str, Any] = {"model": model, "source": source, "accuracy": round(values[benchmark] / 100, 4)}
            if benchmark == "aime24" and (model, source) in _CONSENSUS:
                row["consensus"] = round(_CONSENSUS[model, source] / 100, 4)
            rows.append({**row, "published": True})
    return rows
