"""Wire format: what goes in comes out, and anything else is refused by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ray.codec import pack_rollout, pack_scored, unpack_rollout, unpack_scored
from r1ray.errors import WireError
from r1ray.types import RoutedExperts
from tests.unit.scripted import group, scored


def equal(a: Any, b: Any) -> bool:
    """Dataclasses with arrays have no useful ==."""
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(equal, a, b))
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(equal(getattr(a, f), getattr(b, f)) for f in a.__dataclass_fields__)
    return bool(a == b)


@given(rewards=st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=5), version=st.integers(0, 10**9))
def test_a_scored_group_comes_back_as_it_was(rewards: list[float], version: int) -> None:
    original = scored(index=7, version=version, rewards=rewards)
    assert equal(unpack_scored(pack_scored(original)), original)


def test_a_rollout_comes_back_as_it_was() -> None:
    assert equal(unpack_rollout(pack_rollout(group(3))), group(3))


def with_experts(dtype: Any, every: int) -> Any:
    original = group(3, n=1)
    tokens = len(original.completions[0].token_ids)
    ids = np.arange(-(-tokens // every) * 2 * 3, dtype=dtype).reshape(-1, 2, 3)
    completion = dataclasses.replace(original.completions[0], experts=RoutedExperts(ids=ids, every=every))
    return dataclasses.replace(original, completions=(completion,))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("every", [1, 2])
def test_chosen_experts_come_back_as_they_were(dtype: Any, every: int) -> None:
    original = with_experts(dtype, every)
    assert equal(unpack_rollout(pack_rollout(original)), original)


def test_experts_of_another_number_of_tokens_are_refused() -> None:
    raw = msgpack.unpackb(pack_rollout(with_experts(np.uint8, 1)))
    raw["rollout"]["completions"][0]["experts"]["every"] = 2
    with pytest.raises(WireError, match="experts of 3 tokens, expected 2: one in 2 of 3"):
        unpack_rollout(msgpack.packb(raw))


def tampered(change: Any) -> bytes:
    raw = msgpack.unpackb(pack_scored(scored()))
    change(raw)
    packed: bytes = msgpack.packb(raw)
    return packed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(v=99), "expected wire version 2, got 99"),
        (lambda r: r.update(k="rollout"), "expected a scored"),
        (lambda r: r["scores"].pop(), "1 scores for 2 completions"),
        (lambda r: r["rollout"]["completions"][0].update(version_spans=[[0, 0, 1]]), "spans do not cover"),
        (lambda r: r["rollout"]["completions"][0].update(version_spans=[]), "spans do not cover"),
        (lambda r: r["rollout"]["completions"][0]["behavior_logprobs"].update(b=b""), "3 tokens but 0"),
        (lambda r: r["rollout"]["completions"][0]["token_ids"].update(b=b"abc"), "malformed"),
        (lambda r: r["rollout"].pop("prompt"), "prompt"),
        (lambda r: r.update(rollout=None), "malformed"),
    ],
)
def test_a_broken_message_is_refused_by_name(change: Any, message: str) -> None:
    with pytest.raises(WireError, match=message):
        unpack_scored(tampered(change))


@given(st.binary(max_size=64))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(WireError):
        unpack_scored(noise)
