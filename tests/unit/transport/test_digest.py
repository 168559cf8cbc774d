"""Digests of what is sent and received. A device's sums are computed on the CPU here."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1ray.transport.digest import Digest, sums


def host(buffer: torch.Tensor) -> str:
    digest = Digest()
    digest.update(buffer)
    return digest.hexdigest()


def device(buffer: torch.Tensor) -> str:
    return str(sums(buffer))


KINDS = pytest.mark.parametrize("digest", [host, device])


@KINDS
@given(
    data=st.binary(min_size=1, max_size=64), at=st.integers(0, 10**6), rows=st.integers(0, 3), flip=st.integers(1, 255)
)
def test_any_changed_byte_changes_the_digest(
    digest: Callable[[torch.Tensor], str], data: bytes, at: int, rows: int, flip: int
) -> None:
    data = data * (rows * 8 * 4096 // len(data) + 1)  # up to several rows of words, and a rest
    changed = bytearray(data)
    changed[at % len(data)] ^= flip
    before, after = (torch.frombuffer(bytearray(content), dtype=torch.uint8) for content in (data, changed))
    assert digest(before) != digest(after)


@KINDS
def test_words_that_change_places_change_the_digest(digest: Callable[[torch.Tensor], str]) -> None:
    words = torch.arange(10_000)
    swapped = words.clone()
    swapped[[5, 6000]] = words[[6000, 5]]
    assert digest(words.view(torch.uint8)) != digest(swapped.view(torch.uint8))


def test_buckets_in_another_order_have_another_digest() -> None:
    found = set()
    for order in ((0, 1), (1, 0)):
        digest = Digest()
        for value in order:
            digest.update(torch.full((9,), value, dtype=torch.uint8))
        assert len(digest.hexdigest()) == 32
        found.add(digest.hexdigest())
    assert len(found) == 2
