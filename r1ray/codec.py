"""msgpack encoding of the wire types, with a version and without pickle.

A record is a map with the keys of its dataclass. An array is {"d": dtype, "b": little-endian bytes} and
one-dimensional; chosen experts have their other dimensions beside it, and are left out if they were not recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgpack
import numpy as np

from r1ray.errors import WireError
from r1ray.types import (
    WIRE_VERSION,
    Completion,
    PromptTask,
    RolloutGroup,
    RoutedExperts,
    Sampling,
    Score,
    ScoredGroup,
    VersionSpan,
)

R = TypeVar("R")
_DTYPES: dict[str, np.dtype[Any]] = {
    "i4": np.dtype("<i4"),
    "f4": np.dtype("<f4"),
    "u1": np.dtype("u1"),
    "u2": np.dtype("<u2"),
}


def _array(values: np.ndarray[Any, Any], code: str) -> dict[str, Any]:
    return {"d": code, "b": np.ascontiguousarray(values, dtype=_DTYPES[code]).tobytes()}


def _unarray(raw: dict[str, Any]) -> np.ndarray[Any, Any]:
    dtype = _DTYPES[raw["d"]]
    return np.frombuffer(raw["b"], dtype=dtype)


def _pack_experts(experts: RoutedExperts | None) -> dict[str, Any]:
    if experts is None:
        return {}
    ids = experts.ids
    return {
        "experts": {"ids": _array(ids, f"u{ids.itemsize}"), "each": list(ids.shape[1:]), "every": experts.every},
    }


def _unpack_experts(raw: dict[str, Any] | None, tokens: int) -> RoutedExperts | None:
    if raw is None:
        return None
    ids, every = _unarray(raw["ids"]).reshape(-1, *raw["each"]), raw["every"]
    if len(ids) != (expected := -(-tokens // every)):
        raise WireError(f"experts of {len(ids)} tokens, expected {expected}: one in {every} of {tokens}")
    return RoutedExperts(ids=ids, every=every)


def _pack_rollout(g: RolloutGroup) -> dict[str, Any]:
    p, s = g.prompt, g.sampling
    return {
        "group_id": g.group_id,
        "worker_id": g.worker_id,
        "timings": g.timings,
        "sampling": {
            "temperature": s.temperature,
            "top_p": s.top_p,
            "max_new_tokens": s.max_new_tokens,
            "seed": s.seed,
        },
        "prompt": {
            "prompt_id": p.prompt_id,
            "index": p.index,
            "epoch": p.epoch,
            "token_ids": _array(p.token_ids, "i4"),
            "messages": list(p.messages),
            "answer": p.answer,
            "task": p.task,
            "meta": p.meta,
        },
        "completions": [
            {
                "token_ids": _array(c.token_ids, "i4"),
                "behavior_logprobs": _array(c.behavior_logprobs, "f4"),
                "text": c.text,
                "finish_reason": c.finish_reason,
                "version_spans": [[v.version, v.start, v.end] for v in c.version_spans],
                **_pack_experts(c.experts),
            }
            for c in g.completions
        ],
    }


def _unpack_rollout(raw: dict[str, Any]) -> RolloutGroup:
    p = raw["prompt"]
    prompt = PromptTask(
        prompt_id=p["prompt_id"],
        index=p["index"],
        epoch=p["epoch"],
        token_ids=_unarray(p["token_ids"]),
        messages=tuple(p["messages"]),
        answer=p["answer"],
        task=p["task"],
        meta=p["meta"],
    )
    completions = []
    for c in raw["completions"]:
        tokens, logprobs = _unarray(c["token_ids"]), _unarray(c["behavior_logprobs"])
        if len(tokens) != len(logprobs):
            raise WireError(f"group {raw['group_id']}: {len(tokens)} tokens but {len(logprobs)} log-probabilities")
        spans = tuple(VersionSpan(version=v, start=s, end=e) for v, s, e in c["version_spans"])
        if [s.start for s in spans] != [0, *(s.end for s in spans[:-1])] or not spans or spans[-1].end != len(tokens):
            raise WireError(f"group {raw['group_id']}: version spans do not cover the {len(tokens)} tokens")
        completions.append(
            Completion(
                token_ids=tokens,
                behavior_logprobs=logprobs,
                text=c["text"],
                finish_reason=c["finish_reason"],
                version_spans=spans,
                experts=_unpack_experts(c.get("experts"), len(tokens)),
            )
        )
    return RolloutGroup(
        group_id=raw["group_id"],
        prompt=prompt,
        completions=tuple(completions),
        sampling=Sampling(**raw["sampling"]),
        worker_id=raw["worker_id"],
        timings=raw["timings"],
    )


def _dump(kind: str, body: dict[str, Any]) -> bytes:
    packed = msgpack.packb({"v": WIRE_VERSION, "k": kind, **body}, use_bin_type=True)
    assert isinstance(packed, bytes)
    return packed


def _load(kind: str, data: bytes) -> dict[str, Any]:
    try:
        raw = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, msgpack.exceptions.UnpackException) as e:
        raise WireError(f"{len(data)} bytes cannot be decoded as a msgpack {kind}: {e}") from e
    if not isinstance(raw, dict) or raw.get("k") != kind:
        raise WireError(f"expected a {kind}, got {raw.get('k') if isinstance(raw, dict) else type(raw).__name__}")
    if raw.get("v") != WIRE_VERSION:
        raise WireError(
            f"{kind}: expected wire version {WIRE_VERSION}, got {raw.get('v')}: use the same r1ray in all processes"
        )
    return raw


def pack_rollout(group: RolloutGroup) -> bytes:
    """Encode a rollout group, which a rollout worker sends to a reward worker."""
    return _dump("rollout", {"rollout": _pack_rollout(group)})


def unpack_rollout(data: bytes) -> RolloutGroup:
    """Decode `pack_rollout`. Raises WireError for anything else."""
    return _decode("rollout", data, lambda raw: _unpack_rollout(raw["rollout"]))


def pack_scored(group: ScoredGroup) -> bytes:
    """Encode a scored group, as the ledger stores it."""
    scores = [
        {"reward": s.reward, "parts": s.parts, "error": s.error, "error_kind": s.error_kind} for s in group.scores
    ]
    return _dump("scored", {"rollout": _pack_rollout(group.rollout), "scores": scores})


def unpack_scored(data: bytes) -> ScoredGroup:
    """Decode `pack_scored`. Raises WireError for anything else."""

    def build(raw: dict[str, Any]) -> ScoredGroup:
        rollout = _unpack_rollout(raw["rollout"])
        scores = tuple(Score(**s) for s in raw["scores"])
        if len(scores) != len(rollout.completions):
            raise WireError(
                f"group {rollout.group_id}: {len(scores)} scores for {len(rollout.completions)} completions"
            )
        return ScoredGroup(rollout=rollout, scores=scores)

    return _decode("scored", data, build)


def _decode(kind: str, data: bytes, build: Callable[[dict[str, Any]], R]) -> R:
    raw = _load(kind, data)
    try:
        return build(raw)
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        raise WireError(f"{kind} has a missing or malformed field: {e!r}") from e
