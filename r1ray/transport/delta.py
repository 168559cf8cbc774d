"""Lossless differences: of a bucket, only the words that changed since the last transfer of the same group.

Both ends keep the buckets of the last transfer. A group that had a failure, or whose members changed, is replaced by a
new one, whose first transfer is whole: so the receivers of a second transfer have what the sender compares with.

    sender     header [1]: number of entries, or WHOLE     payload: the bucket, or values [entries] and gaps [entries]
    receiver   a copy of its last bucket, with the values put in their places

Words have the size of the tensors' items. A gap is the distance to the entry before, in two bytes; where words lie
further apart, entries between them repeat a value that has not changed. An entry of bfloat16 has 4 bytes, so a message
is smaller than the bucket while less than half of the words have changed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from r1ray.errors import WeightSyncError
from r1ray.transport.channel import Channel, Pending
from r1ray.transport.incoming import Incoming

WHOLE = -1
"""Number of entries in the header of a bucket that is sent whole."""
_HEADER_BYTES = 8
_GAP_BYTES = 2
_FARTHEST = 2**16 - 1
_SIGNED = 2**15
"""Gaps travel as int16, less this."""
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def changes(old: Tensor, new: Tensor, item: int) -> Tensor:
    """The message, uint8, that makes `new` of `old` (uint8 [n], words of `item` bytes); empty if they are equal."""
    before, after = old.view(_WORDS[item]), new.view(_WORDS[item])
    places = (before != after).nonzero().view(-1)
    gaps = torch.diff(places, prepend=places.new_tensor([-1]))
    between = (gaps - 1).div(_FARTHEST, rounding_mode="floor")  # entries that only bridge the distance
    every = torch.full((int(between.sum()) + len(gaps),), _FARTHEST, dtype=torch.int64)
    every[torch.cumsum(between + 1, 0) - 1] = gaps - between * _FARTHEST
    values = after[torch.cumsum(every, 0) - 1]
    return torch.cat([values.view(torch.uint8), (every - _SIGNED).to(torch.int16).view(torch.uint8)])


def patched(old: Tensor, message: Tensor, item: int, room: Tensor) -> Tensor:
    """`room` with `old` and in it the `message` of `changes`. Raises WeightSyncError if it lies outside `old`."""
    new = room.copy_(old)
    entries = message.numel() // (item + _GAP_BYTES)
    values, gaps = message[: entries * item], message[entries * item :].clone()  # aligned
    places = torch.cumsum(gaps.view(torch.int16).to(torch.int64) + _SIGNED, 0) - 1
    words = new.view(_WORDS[item])
    if entries and int(places[-1]) >= len(words):
        raise WeightSyncError(f"a difference lies at word {int(places[-1])} of a bucket of {len(words)} words")
    words[places] = values.view(_WORDS[item])
    return new


class DeltaSender:
    """Makes the messages of one group, and keeps its buckets for the next transfer."""

    def __init__(self) -> None:
        self._last: dict[int, Tensor] = {}

    def messages(self, number: int, bucket: Tensor, item: int) -> list[Tensor]:
        """What is to be broadcast for the bucket of this number: a header, and the payload unless it is empty.

        Keeps `bucket`, which must not change any more.
        """
        old, self._last[number] = self._last.get(number), bucket
        message = bucket if old is None else changes(old, bucket, item)
        whole = old is None or message.numel() >= bucket.numel()
        payload = bucket if whole else message
        entries = WHOLE if whole else message.numel() // (item + _GAP_BYTES)
        header = torch.tensor([entries], dtype=torch.int64).view(torch.uint8)
        return [header, payload] if payload.numel() else [header]


class DeltaReceiver(Incoming):
    """Receives what a `DeltaSender` of the same group has made."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._last: dict[int, Tensor] = {}
        self._header = channel.buffer(_HEADER_BYTES)
        self._pending: Pending | None = None

    def begin(self, number: int, item: int, room: Tensor) -> None:
        """See `Incoming`."""
        self._number, self._item, self._room = number, item, room
        self._pending = self._channel.start(self._header)

    def arrive(self) -> Callable[[], object]:
        """See `Incoming`."""
        assert self._pending is not None, "`begin` comes first"
        self._pending.wait()
        number, item, room = self._number, self._item, self._room
        entries, old = int(self._header.view(torch.int64)), self._last.get(number)
        payload = room if entries == WHOLE else self._channel.buffer(entries * (item + _GAP_BYTES))
        if payload.numel():
            self._channel.broadcast(payload)
        if entries == WHOLE:
            self._last[number] = room
            return lambda: None
        if old is None:
            raise WeightSyncError(f"bucket {number} came as a difference, and there was no transfer before it")
        self._last[number] = room
        return partial(patched, old, payload, item, room)
