"""Sequences to train on: advantages from the manifest alone, tokens from the fetched payloads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as SequenceOf
from typing import Any

import numpy as np

from learner.advantages import Advantage, FloatArray, soft_overlong_penalty
from learner.batch import Sequence
from learner.losses import LOSSES
from learner.objective import Denominators
from learner.packing import SequenceRef
from r1ray.codec import unpack_scored
from r1ray.config.lengths import completion_limit
from r1ray.config.schema import Config
from r1ray.errors import IntegrityError
from r1ray.types import BatchManifest, Completion, GroupSummary, ScoredGroup

Fetch = Callable[[list[str]], list[bytes]]
"""Payloads (`r1ray.codec.pack_scored`) of these group ids, in the same order."""


def batch_advantages(manifest: BatchManifest, advantage: Advantage, config: Config) -> list[FloatArray]:
    """The advantage of every completion, [G] for each group, after the soft overlong penalty if there is one."""
    a = config.algorithm
    shaped = []
    for group in manifest.groups:
        rewards_G = np.array(group.rewards, dtype=np.float64)
        if a.overlong_buffer_tokens:
            rewards_G = rewards_G + soft_overlong_penalty(
                np.array(group.completion_tokens),
                max_new_tokens=completion_limit(config, group.index),
                buffer_tokens=a.overlong_buffer_tokens,
                penalty=a.overlong_penalty,
            )
        shaped.append(rewards_G)
    return advantage(shaped)


def is_trained(group: GroupSummary, completion: int, config: Config) -> bool:
    """Whether a completion enters the loss. Decided by its length alone, so that every rank knows all denominators."""
    if not config.algorithm.mask_truncated:
        return True
    limit = min(completion_limit(config, group.index), config.model.max_length - group.prompt_tokens)
    return group.completion_tokens[completion] < limit


def silent_completions(
    manifest: BatchManifest, advantages: SequenceOf[FloatArray], config: Config
) -> list[list[list[int]]]:
    """The completions without a gradient, as `packing.Silent`: [groups][kinds][completions].

    Two kinds: those that are not trained (`is_trained`), and those whose advantage is zero while no other term of the
    loss (KL, entropy) concerns them. A user-defined loss may do anything with an advantage of zero, so it gets them
    all.
    """
    a = config.algorithm
    by_advantage = a.loss in LOSSES and not a.kl_coefficient and not a.entropy_coefficient
    silent = []
    for group, advantages_G in zip(manifest.groups, advantages, strict=True):
        trained = [is_trained(group, c, config) for c in range(len(advantages_G))]
        untrained = [c for c, is_in in enumerate(trained) if not is_in]
        zero = [c for c, is_in in enumerate(trained) if is_in and by_advantage and advantages_G[c] == 0]
        silent.append([kind for kind in (untrained, zero) if kind])
    return silent


def denominators(manifest: BatchManifest, groups: Iterable[int], config: Config) -> Denominators:
    """Tokens and sequences that a minibatch of these groups trains on. 1 if all are masked: the sums are 0 then."""
    lengths = [
        tokens
        for g in groups
        for c, tokens in enumerate(manifest.groups[g].completion_tokens)
        if is_trained(manifest.groups[g], c, config)
    ]
    return Denominators(tokens=max(1, sum(lengths)), sequences=max(1, len(lengths)))


def fetch_groups(manifest: BatchManifest, indices: Iterable[int], fetch: Fetch) -> dict[int, ScoredGroup]:
    """Payloads by index into the manifest. Raises IntegrityError if one contradicts its summary."""
    wanted = sorted(set(indices))
    payloads = fetch([manifest.groups[g].group_id for g in wanted]) if wanted else []
    if len(payloads) != len(wanted):
        raise IntegrityError(f"step {manifest.step}: requested {len(wanted)} groups, got {len(payloads)}")
    scored = {g: unpack_scored(payload) for g, payload in zip(wanted, payloads, strict=True)}
    for g, group in scored.items():
        _check(manifest.groups[g], group)
    return scored


def _check(summary: GroupSummary, group: ScoredGroup) -> None:
    rollout = group.rollout
    facts: dict[str, tuple[Any, Any]] = {
        "group_id": (summary.group_id, rollout.group_id),
        "prompt tokens": (summary.prompt_tokens, len(rollout.prompt.token_ids)),
        "completion tokens": (summary.completion_tokens, tuple(len(c.token_ids) for c in rollout.completions)),
        "rewards": (summary.rewards, tuple(s.reward for s in group.scores)),
    }
    for name, (expected, found) in facts.items():
        if expected != found:
            raise IntegrityError(
                f"group {summary.group_id}: {name} {found} of the payload are not the manifest's {expected}"
            )


def make_sequence(ref: SequenceRef, group: ScoredGroup, advantage: float, *, trained: bool) -> Sequence:
    """One completion of a fetched group, ready to be packed."""
    completion = group.rollout.completions[ref.completion]
    return Sequence(
        prompt=group.rollout.prompt.token_ids,
        completion=completion.token_ids,
        temperature=group.rollout.sampling.temperature,
        behavior_logprobs=completion.behavior_logprobs,
        versions=versions_of(completion),
        advantage=advantage,
        trained=trained,
        represents=1 + len(ref.stands_for),
        experts=completion.experts,
    )


def versions_of(completion: Completion) -> Any:
    """The policy that sampled each token, int64 [T]."""
    versions = np.empty(len(completion.token_ids), dtype=np.int64)
    for span in completion.version_spans:
        versions[span.start : span.end] = span.version
    return versions
