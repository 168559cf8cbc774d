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

import torch
from torch import Tensor

from r1ray.errors import WeightSyncError
from r1ray.transport.channel import Channel

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


def patched(old: Tensor, message: Tensor, item: int) -> Tensor:
    """`old` with the `message` of `changes`, in new memory. Raises WeightSyncError if it lies outside `old`."""
    new = old.clone()
    entries = message.numel() // (item + _GAP_BYTES)
    values, gaps = message[: entries * item], message[entries * item :].clone()  # aligned
    places = torch.cumsum(gaps.view(torch.int16).to(torch.int64) + _SIGNED, 0) - 1
    words = new.view(_WORDS[item])
    if entries and int(places[-1]) >= len(words):
        raise WeightSyncError(f"a difference lies at word {int(places[-1])} of a bucket of {len(words)} words")
    words[places] = values.view(_WORDS[item])
    return new


class DeltaSender:
    """Sends buckets over a group, and keeps them for the next transfer."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._last: dict[int, Tensor] = {}

    def send(self, number: int, bucket: Tensor, item: int) -> int:
        """Send the bucket of this number, whole or as a difference; returns the bytes on the wire."""
        old, self._last[number] = self._last.get(number), bucket
        message = bucket if old is None else changes(old, bucket, item)
        whole = old is None or message.numel() >= bucket.numel()
        payload = bucket if whole else message
        entries = WHOLE if whole else message.numel() // (item + _GAP_BYTES)
        self._channel.broadcast(torch.tensor([entries], dtype=torch.int64).view(torch.uint8))
        if payload.numel():
            self._channel.broadcast(payload)
        return _HEADER_BYTES + int(payload.numel())


class DeltaReceiver:
    """Receives what a `DeltaSender` sends over the same group."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._last: dict[int, Tensor] = {}

    def receive(self, number: int, nbytes: int, item: int) -> Tensor:
        """The bucket of this number, whole, in memory that stays as it is; raises WeightSyncError."""
        header = self._channel.buffer(_HEADER_BYTES)
        self._channel.broadcast(header)
        entries, old = int(header.view(torch.int64)), self._last.get(number)
        payload = self._channel.buffer(nbytes if entries == WHOLE else entries * (item + _GAP_BYTES))
        if payload.numel():
            self._channel.broadcast(payload)
        if entries != WHOLE and old is None:
            raise WeightSyncError(f"bucket {number} came as a difference, and there was no transfer before it")
        bucket = payload if entries == WHOLE or old is None else patched(old, payload, item)
        self._last[number] = bucket
        return bucket
