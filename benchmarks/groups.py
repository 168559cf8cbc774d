"""Made-up prompts, completions and groups for benchmarks and tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from r1ray.ledger.summary import summarise
from r1ray.types import (
    BatchManifest,
    Completion,
    FinishReason,
    Message,
    PromptTask,
    RolloutGroup,
    Sampling,
    ScoredGroup,
    VersionSpan,
)


def make_prompt(
    index: int,
    *,
    token_ids: Any = (1, 2, 3),
    answer: Any = "7",
    task: str = "sums",
    messages: tuple[Message, ...] | None = None,
    meta: dict[str, Any] | None = None,
) -> PromptTask:
    """The prompt at `index`; by default its message is `question INDEX`."""
    return PromptTask(
        prompt_id=f"p{index}",
        index=index,
        epoch=0,
        token_ids=np.asarray(token_ids, dtype=np.int32),
        messages=({"role": "user", "content": f"question {index}"},) if messages is None else messages,
        answer=answer,
        task=task,
        meta=meta or {},
    )


def make_completion(
    token_ids: Any,
    *,
    logprobs: Any = -0.5,
    text: str = "",
    finish_reason: FinishReason = "stop",
    spans: Sequence[tuple[int, int, int]] | None = None,
    version: int = 0,
) -> Completion:
    """A completion of these tokens, or of so many; `logprobs` may be one number for all.

    `spans` are (version, start, end); by default policy `version` sampled all tokens.
    """
    ids = np.arange(token_ids) if isinstance(token_ids, int) else token_ids
    ids = np.asarray(ids, dtype=np.int32)
    return Completion(
        token_ids=ids,
        behavior_logprobs=np.broadcast_to(np.asarray(logprobs, dtype=np.float32), ids.shape).copy(),
        text=text,
        finish_reason=finish_reason,
        version_spans=tuple(VersionSpan(version=v, start=s, end=e) for v, s, e in spans or [(version, 0, len(ids))]),
    )


def make_group(
    group_id: str,
    prompt: PromptTask,
    completions: Iterable[Completion],
    *,
    temperature: float = 1.0,
    max_new_tokens: int = 0,
    worker_id: str = "w0",
    timings: dict[str, float] | None = None,
) -> RolloutGroup:
    """A group that worker `worker_id` sampled."""
    return RolloutGroup(
        group_id=group_id,
        prompt=prompt,
        completions=tuple(completions),
        sampling=Sampling(temperature=temperature, max_new_tokens=max_new_tokens),
        worker_id=worker_id,
        timings=timings or {},
    )


def make_manifest(step: int, groups: Iterable[ScoredGroup]) -> BatchManifest:
    """The manifest of these groups as the batch of a step."""
    return BatchManifest(step=step, groups=tuple(map(summarise, groups)))
