"""Differences of buckets: equal bits, few bytes, and what is refused."""

from __future__ import annotations

from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ray.errors import WeightSyncError
from r1ray.transport.channel import Channel, Pending
from r1ray.transport.delta import DeltaReceiver, DeltaSender, changes, patched


class Wire(Channel):
    """What one end broadcasts, the other receives; both ends share this object."""

    def __init__(self) -> None:
        self.messages: deque[torch.Tensor] = deque()

    def end(self, *, sends: bool) -> Channel:
        return _End(self, sends=sends)


class _End(Channel):
    def __init__(self, wire: Wire, *, sends: bool) -> None:
        self._wire, self._sends = wire, sends

    def buffer(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8)

    def start(self, buffer: torch.Tensor) -> Pending:
        if self._sends:
            self._wire.messages.append(buffer.clone())
        else:
            buffer.copy_(self._wire.messages.popleft())
        return Done()


class Done(Pending):
    def wait(self) -> None: ...


def send(sender: DeltaSender, end: Channel, number: int, bucket: torch.Tensor, item: int) -> int:
    """Returns the bytes on the wire."""
    messages = sender.messages(number, bucket, item)
    for message in messages:
        end.broadcast(message)
    return sum(message.numel() for message in messages)


def receive(receiver: DeltaReceiver, number: int, nbytes: int, item: int) -> torch.Tensor:
    room = torch.empty(nbytes, dtype=torch.uint8)
    receiver.begin(number, item, room)
    receiver.arrive()()
    return room


def patch(old: torch.Tensor, message: torch.Tensor, item: int) -> torch.Tensor:
    return patched(old, message, item, torch.empty_like(old))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**16),
    words=st.integers(1, 300_000),
    item=st.sampled_from([1, 2, 4, 8]),
    share=st.sampled_from([0.0, 1e-5, 0.001, 0.03, 0.5, 1.0]),
)
def test_the_other_end_gets_equal_bits(seed: int, words: int, item: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    old = torch.randint(0, 256, (words, item), dtype=torch.uint8, generator=generator)
    new = old.clone()
    changed = torch.rand(words, generator=generator) < share
    new[changed] = torch.randint(0, 256, (int(changed.sum()), item), dtype=torch.uint8, generator=generator)
    before = old.clone()
    message = changes(old.view(-1), new.view(-1), item)
    assert torch.equal(patch(old.view(-1), message, item), new.view(-1))
    assert torch.equal(old, before)  # a loaded model may keep views of it
    if torch.equal(old, new):
        assert message.numel() == 0


def test_words_far_apart_are_bridged() -> None:
    old = torch.zeros(400_000, dtype=torch.bfloat16)
    new = old.clone()
    new[[0, 65_535, 131_071, 399_999]] = 1.0  # distances of 1, 65,535, 65,536 and 268,928 words
    old, new = old.view(torch.uint8), new.view(torch.uint8)
    message = changes(old, new, 2)
    assert message.numel() == (4 + 1 + 4) * 4
    assert torch.equal(patch(old, message, 2), new)


def test_bits_count_and_not_values() -> None:
    old = torch.tensor([0.0, float("nan"), 1.0])
    new = torch.tensor([-0.0, float("nan"), 1.0])
    message = changes(old.view(torch.uint8), new.view(torch.uint8), 4)
    assert message.numel() == 6
    assert torch.signbit(patch(old.view(torch.uint8), message, 4).view(torch.float32)[0])


def test_three_percent_of_bfloat16_take_a_sixteenth() -> None:
    torch.manual_seed(0)
    old = torch.randn(1_000_000).bfloat16()
    new = torch.where(torch.rand(1_000_000) < 0.03, old * 2, old)
    message = changes(old.view(torch.uint8), new.view(torch.uint8), 2)
    assert message.numel() < 0.0625 * 2_000_000


def test_the_first_transfer_is_whole_and_the_next_are_differences() -> None:
    wire = Wire()
    sender, receiver = DeltaSender(), DeltaReceiver(wire.end(sends=False))
    torch.manual_seed(0)
    first = torch.randn(10_000).bfloat16()
    few = first.clone()
    few[::100] += 1.0
    sizes = []
    for weights in (first, few, few, torch.randn(10_000).bfloat16()):
        bucket = weights.view(torch.uint8).clone()
        sizes.append(send(sender, wire.end(sends=True), 3, bucket, 2))
        assert torch.equal(receive(receiver, 3, len(bucket), 2), bucket)
    assert sizes == [20_008, 408, 8, 20_008]  # the last one is smaller whole
    assert not wire.messages


def test_a_difference_without_a_transfer_before_it_is_refused() -> None:
    wire = Wire()
    sender = DeltaSender()
    for value in (1, 2):
        send(
            sender,
            wire.end(sends=True),
            0,
            torch.full((64,), value, dtype=torch.uint8).index_fill(0, torch.arange(1, 64), 7),
            1,
        )
    late = DeltaReceiver(wire.end(sends=False))
    wire.messages = deque(list(wire.messages)[2:])
    with pytest.raises(WeightSyncError, match="bucket 0 came as a difference"):
        receive(late, 0, 64, 1)


def test_a_difference_of_a_longer_bucket_is_refused() -> None:
    message = changes(torch.zeros(8, dtype=torch.uint8), torch.ones(8, dtype=torch.uint8), 1)
    with pytest.raises(WeightSyncError, match="word 7 of a bucket of 4 words"):
        patch(torch.zeros(4, dtype=torch.uint8), message, 1)
