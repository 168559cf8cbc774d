"""Buckets, digests and the gloo group, all in one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1ray.errors import ConfigError, WeightSyncError
from r1ray.transport.channel import Channel, Rendezvous
from r1ray.transport.plan import (
    TensorSpec,
    bucket_plan,
    one_sender,
    pack_into,
    spec_of,
    transfer_plan,
    unpack,
)
from r1ray.transport.rendezvous import abort, join, leaders_of, listen, offer
from r1ray.transport.transfer import Share


def joined(rendezvous: Rendezvous, rank: int = 1) -> Channel:
    (channel,) = join(rendezvous, rank=rank, host="127.0.0.1").channels
    return channel


SHAPES = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple), min_size=1, max_size=12)


@given(
    shapes=SHAPES,
    limit=st.integers(1, 200),
    dtypes=st.lists(st.sampled_from(["float32", "bfloat16"]), min_size=12, max_size=12),
)
def test_every_tensor_travels_once_in_order_and_unpacks_to_itself(
    shapes: list[tuple[int, ...]], limit: int, dtypes: list[str]
) -> None:
    tensors = [(torch.randn(s) * 3).to(getattr(torch, d)) for s, d in zip(shapes, dtypes, strict=False)]
    specs = [spec_of(f"t{i}", t) for i, t in enumerate(tensors)]
    plan = bucket_plan(specs, limit)
    assert [s for b in plan for s in b.specs] == specs
    position = 0
    for bucket in plan:
        buffer = torch.empty(bucket.nbytes, dtype=torch.uint8)
        pack_into(buffer, tensors[position : position + len(bucket.specs)])
        for name, tensor in unpack(bucket, buffer):
            assert torch.equal(tensor, tensors[int(name[1:])])
        position += len(bucket.specs)


def test_buckets_close_at_the_limit_and_hold_one_dtype() -> None:
    specs = [
        TensorSpec(name=n, dtype=d, shape=(2,)) for n, d in [("a", "float32"), ("b", "float32"), ("c", "bfloat16")]
    ]
    assert [[s.name for s in b.specs] for b in bucket_plan(specs, 8)] == [["a"], ["b"], ["c"]]
    assert [[s.name for s in b.specs] for b in bucket_plan(specs, 1000)] == [["a", "b"], ["c"]]


def test_a_broadcast_reaches_every_receiver() -> None:
    listener = listen("gloo", address="127.0.0.1", epoch=1, world_size=3, timeout_s=30.0)
    received: dict[int, torch.Tensor] = {}

    def receiver(rank: int) -> None:
        channel = joined(listener.rendezvous, rank=rank)
        for _ in range(2):
            buffer = channel.buffer(16)
            channel.broadcast(buffer)
            received[rank] = buffer

    threads = [threading.Thread(target=receiver, args=(r,)) for r in (1, 2)]
    for t in threads:
        t.start()
    channel = listener.accept()
    for value in (1, 2):
        channel.broadcast(torch.full((16,), value, dtype=torch.uint8))
    for t in threads:
        t.join(30.0)
    assert all(torch.equal(received[r], torch.full((16,), 2, dtype=torch.uint8)) for r in (1, 2))


def test_receivers_with_one_shared_memory_have_one_leader() -> None:
    assert leaders_of([b"m", b"", b"n", b"m", b"", b"n"]) == [1, 2, 3, 1, 5, 3]


def test_only_the_first_receiver_of_a_host_is_in_the_group() -> None:
    listener = listen("gloo", address="127.0.0.1", epoch=4, world_size=5, timeout_s=30.0)
    memories = {1: "m", 2: "m", 3: "", 4: "m"}
    with ThreadPoolExecutor(4) as pool:
        calls = {
            r: pool.submit(join, listener.rendezvous, rank=r, memory=m, host="127.0.0.1") for r, m in memories.items()
        }
        sender = listener.accept()
        members = {r: call.result(30.0) for r, call in calls.items()}
        assert [(m.leader, m.followers, len(m.channels)) for m in members.values()] == [
            (1, (2, 4), 1),
            (1, (), 0),
            (3, (), 1),
            (1, (), 0),
        ]
        channels = [members[r].channels[0] for r in (1, 3)]
        buffers = [torch.zeros(8, dtype=torch.uint8) for _ in channels]
        taken = [pool.submit(c.broadcast, b) for c, b in zip(channels, buffers, strict=True)]
        sender.broadcast(torch.arange(8, dtype=torch.uint8))
        for each in taken:
            each.result(30.0)
    assert all(torch.equal(buffer, torch.arange(8, dtype=torch.uint8)) for buffer in buffers)


def test_every_sender_has_a_group_of_its_own_and_one_that_never_reports_is_named() -> None:
    listener = listen("gloo", address="127.0.0.1", epoch=5, world_size=2, timeout_s=30.0, senders=2)
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(offer, listener.rendezvous, sender=1, host="127.0.0.1")
        receiver = pool.submit(join, listener.rendezvous, rank=1, host="127.0.0.1")
        senders = [listener.accept(), other.result(30.0)]
        channels = receiver.result(30.0).channels
        for value, (sender, channel) in enumerate(zip(senders, channels, strict=True), 1):
            buffer = torch.zeros(8, dtype=torch.uint8)
            taken = pool.submit(channel.broadcast, buffer)
            sender.broadcast(torch.full((8,), value, dtype=torch.uint8))
            taken.result(30.0)
            assert torch.equal(buffer, torch.full((8,), value, dtype=torch.uint8))
    late = listen("gloo", address="127.0.0.1", epoch=6, world_size=1, timeout_s=0.2, senders=3)
    with pytest.raises(WeightSyncError, match=r"receivers \[\] and learner ranks \[1, 2\] did not report within 0.2 s"):
        late.accept()


LAYOUT = one_sender(
    [TensorSpec(name="a", dtype="float32", shape=(3, 4)), TensorSpec(name="b", dtype="float32", shape=(2,))]
)


def test_what_senders_share_has_every_value_once() -> None:
    plan = transfer_plan(replace(LAYOUT, shares=[[(0, 0, 7)], [(1, 0, 2), (0, 7, 5)]]), 1024)
    assert [[(p.spec.name, p.start, p.count) for b in stream for p in b.pieces] for stream in plan.streams] == [
        [("a", 0, 7)],
        [("b", 0, 2), ("a", 7, 5)],
    ]
    assert [[p.spec.name for p in block.pieces] for block in plan.blocks] == [["a", "b"]]


@pytest.mark.parametrize("shares", [[[(0, 0, 7)], [(1, 0, 2)]], [[(0, 0, 12), (1, 0, 2)], [(0, 7, 5)]], [[]]])
def test_values_that_no_sender_or_two_have_are_refused(shares: list[list[Share]]) -> None:
    with pytest.raises(WeightSyncError, match=r"a: expected 12 values, the senders have"):
        transfer_plan(replace(LAYOUT, shares=shares), 1024)


def test_a_receiver_that_never_joins_costs_the_deadline_and_is_named() -> None:
    listener = listen("gloo", address="127.0.0.1", epoch=7, world_size=2, timeout_s=0.5)
    with pytest.raises(WeightSyncError, match=r"epoch 7 did not form: receivers \[1\] .*sync.bucket_deadline_s"):
        listener.accept()


def test_an_aborted_rendezvous_ends_at_once_for_all() -> None:
    listener = listen("gloo", address="127.0.0.1", epoch=8, world_size=3, timeout_s=60.0)
    said: list[str] = []

    def member(meet: Callable[[], object]) -> None:
        try:
            meet()
        except WeightSyncError as e:
            said.append(str(e))

    meets = [listener.accept, lambda: joined(listener.rendezvous)]
    threads = [threading.Thread(target=member, args=(meet,)) for meet in meets]
    began = time.monotonic()
    for t in threads:
        t.start()
    assert abort(listener.rendezvous, "rollout-1 died")
    for t in threads:
        t.join(30.0)
    assert time.monotonic() - began < 30.0
    assert len(said) == 2
    assert all("epoch 8 did not form: rollout-1 died" in text for text in said)


@pytest.mark.parametrize("waiting", ["sender", "receiver"])
def test_a_formed_group_is_aborted_at_once_for_a_member_that_waits_in_it(waiting: str) -> None:
    listener = listen("gloo", address="127.0.0.1", epoch=9, world_size=2, timeout_s=60.0)
    channels: dict[str, Any] = {}

    def receive() -> None:
        channels["receiver"] = joined(listener.rendezvous)
        channels["receiver"].broadcast(torch.zeros(8, dtype=torch.uint8))

    thread = threading.Thread(target=receive)
    thread.start()
    channels["sender"] = listener.accept()
    channels["sender"].broadcast(torch.zeros(8, dtype=torch.uint8))
    thread.join(30.0)
    began = time.monotonic()
    assert abort(listener.rendezvous, "rollout-1: killed")
    with pytest.raises(WeightSyncError, match=r"epoch 9 .*aborted: rollout-1: killed"):
        channels[waiting].broadcast(torch.ones(8, dtype=torch.uint8))
    assert time.monotonic() - began < 30.0
    other = channels["receiver" if waiting == "sender" else "sender"]
    other._group.broadcast(torch.ones(8, dtype=torch.uint8), 0).wait()  # lets the pending operation end


def test_a_rendezvous_whose_learner_is_gone_needs_no_abort() -> None:
    listener = listen("gloo", address="127.0.0.1", epoch=10, world_size=2, timeout_s=0.5)
    rendezvous = listener.rendezvous
    del listener
    assert not abort(rendezvous, "whatever")


def test_a_sender_that_stops_sending_costs_the_bucket_deadline() -> None:
    listener = listen("gloo", address="127.0.0.1", epoch=2, world_size=2, timeout_s=3.0)
    outcome: list[Any] = []

    def receiver() -> None:
        channel = joined(listener.rendezvous)
        try:
            channel.broadcast(channel.buffer(8))
        except WeightSyncError as e:
            outcome.append(str(e))

    thread = threading.Thread(target=receiver)
    thread.start()
    channel = listener.accept()
    thread.join(30.0)
    assert "sync.bucket_deadline_s=3" in outcome[0]
    channel.close()


def test_a_learner_that_is_gone_is_named() -> None:
    listener = listen("gloo", address="127.0.0.1", epoch=3, world_size=2, timeout_s=0.5)
    rendezvous = listener.rendezvous
    del listener
    with pytest.raises(WeightSyncError, match=f"127.0.0.1:{rendezvous.port}"):
        join(rendezvous, rank=1, host="127.0.0.1")


def test_an_unknown_transport_is_refused() -> None:
    with pytest.raises(ConfigError, match="pigeon"):
        listen("pigeon", address="127.0.0.1", epoch=1, world_size=2, timeout_s=1.0)
