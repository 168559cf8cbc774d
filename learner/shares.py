"""What each learner rank sends of the policy if all of them do (`sync.senders: all`).

A tensor that ZeRO 3 has partitioned is sent in its partitions, and is gathered nowhere. Every other one is sent by the
rank that has the fewest bytes to send so far: tensors that the checkpoint has under other names or shapes, weights with
adapters, buffers, and all tensors under ZeRO 0 to 2.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from learner.checkpoint_format import CheckpointFormat, persistent_buffers
from learner.engine import Engine

PREFIX = "hf."
"""Of the names of the transformers model's tensors in the module that the engine trains."""


def held_weights(
    engine: Engine, stored: CheckpointFormat, *, rank: int, ranks: int
) -> Iterator[tuple[str, int, Tensor]]:
    """(name in the checkpoint, first value, values) of what `rank` sends, in a fixed order.

    Tensors are valid until the next is requested, and every rank must iterate to the end: some are gathered.
    """
    sent = [0] * ranks

    def whole(name: str, tensor: Tensor) -> Iterator[tuple[str, int, Tensor]]:
        for part, values in stored.tensors(name, tensor):
            least = sent.index(min(sent))
            sent[least] += values.nbytes
            if least == rank:
                yield part, 0, values

    for name, start, tensor in engine.held_parameters(lambda name: not stored.converts(name.removeprefix(PREFIX))):
        if start is None:
            yield from whole(name.removeprefix(PREFIX), tensor)
        elif tensor.numel():
            yield name.removeprefix(PREFIX), start, tensor
    for name, buffer in persistent_buffers(engine.module.hf):
        yield from whole(name, buffer)
