"""What a sender packs, and what it sends from where it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from actors.staging import WeightReceiver
from learner import publish
from learner.publish import WeightPublisher
from r1ray.config.schema import SyncConfig
from r1ray.transport.plan import ALONE, bucket_plan, one_sender, pack_into, spec_of, transfer_plan
from r1ray.transport.rendezvous import join
from r1ray.util.network import LOOPBACK

WEIGHTS = {
    "small": torch.arange(5.0),
    "large": torch.randn(ALONE // 4),
    "transposed": torch.randn(1024, ALONE // 4096 + 8).t(),
    "last": torch.arange(7.0),
    "bfloat16": torch.randn(ALONE // 2 + 3).bfloat16(),
}


def gathered() -> Iterator[tuple[str, int, torch.Tensor]]:
    """Each weight is spoiled when the next is requested, as a gathered one may be."""
    for name, weight in WEIGHTS.items():
        copy = torch.empty_like(weight).copy_(weight)
        yield name, 0, copy
        copy.fill_(-1.0)


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("full", ["small", "transposed", "last"]),
        ("delta", list(WEIGHTS)),  # keeps what it has sent, and weights change in place
    ],
)
def test_large_weights_are_sent_from_where_they_are(
    encoding: str, packed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SyncConfig(digest="wire", bucket_deadline_s=30.0, encoding=encoding)  # type: ignore[arg-type]
    specs = [spec_of(name, weight) for name, weight in WEIGHTS.items()]
    plan = bucket_plan(specs, config.bucket_bytes)
    publisher = WeightPublisher(config, transport="gloo", plan=plan, host=LOOPBACK)
    sizes: list[int] = []

    def counted(buffer: torch.Tensor, tensors: Iterator[torch.Tensor]) -> None:
        sizes.append(buffer.numel())
        pack_into(buffer, tensors)

    monkeypatch.setattr(publish, "pack_into", counted)
    rendezvous = publisher.open_epoch(1, 1)
    receiver = WeightReceiver(torch.device("cpu"))
    receiver.enter(lambda device: join(rendezvous, rank=1, memory="", host=LOOPBACK))
    for _ in range(2):
        sizes.clear()
        receiver.begin(transfer_plan(one_sender(specs), config.bucket_bytes), digest=True, delta=encoding == "delta")
        sent = publisher.send(gathered())
        assert receiver._thread is not None
        receiver._thread.join(30.0)
        received = receiver.received()
        assert received is not None
        assert received.digest == sent.digest
        assert all(torch.equal(receiver.tensors()[name], weight) for name, weight in WEIGHTS.items())
        assert sum(sizes) == sum(WEIGHTS[name].nbytes for name in packed)
    publisher._leave()
    receiver.leave()
