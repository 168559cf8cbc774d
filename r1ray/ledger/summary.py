"""Columns of a scored group: from its payload, and back to the summary that batches are planned with."""

from __future__ import annotations

import json
import math
import sqlite3

from r1ray.errors import WireError
from r1ray.types import GroupSummary, ScoredGroup


def summarise(group: ScoredGroup) -> GroupSummary:
    """The summary of a payload. Raises WireError for a group without completions."""
    rollout = group.rollout
    if not rollout.completions:
        raise WireError(
            f"group {rollout.group_id} has no completions: its rollout worker must report a failure instead"
        )
    return GroupSummary(
        group_id=rollout.group_id,
        index=rollout.prompt.index,
        prompt_tokens=len(rollout.prompt.token_ids),
        completion_tokens=tuple(len(c.token_ids) for c in rollout.completions),
        rewards=tuple(float(s.reward) for s in group.scores),
        min_policy_version=rollout.min_policy_version,
        max_policy_version=rollout.max_policy_version,
    )


def failure(group: ScoredGroup) -> str | None:
    """The kind of the first failed score, or None if all completions were scored."""
    for score in group.scores:
        if score.error is not None:
            return score.error_kind or score.error or "unnamed"
        if not math.isfinite(score.reward):
            return "reward_not_finite"
    return None


def to_columns(summary: GroupSummary) -> dict[str, object]:
    """Values for the columns of the same names; JSON preserves every bit of a float."""
    return {
        "prompt_tokens": summary.prompt_tokens,
        "completion_tokens": json.dumps(summary.completion_tokens),
        "rewards": json.dumps(summary.rewards, allow_nan=False),
        "min_version": summary.min_policy_version,
        "max_version": summary.max_policy_version,
    }


def from_row(row: sqlite3.Row) -> GroupSummary:
    """The inverse of `to_columns`, from a row of `groups` that has them."""
    return GroupSummary(
        group_id=row["group_id"],
        index=row["prompt_index"],
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=tuple(json.loads(row["completion_tokens"])),
        rewards=tuple(json.loads(row["rewards"])),
        min_policy_version=row["min_version"],
        max_policy_version=row["max_version"],
    )
