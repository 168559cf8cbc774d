"""Operations that end early: an abort, a learner that left, a deadline, and what the operation itself raises."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from torch.distributed import PrefixStore, Store, TCPStore

from r1ray.transport.abortable import ABORTED, AbortSignal, abortable

LIMIT_S = timedelta(seconds=30)


def server() -> TCPStore:
    return TCPStore("127.0.0.1", 0, is_master=True, timeout=LIMIT_S, wait_for_workers=False)


def member(store: TCPStore) -> Store:
    client = TCPStore("127.0.0.1", store.port, is_master=False, timeout=LIMIT_S, wait_for_workers=False)
    return PrefixStore("epoch", client)


def run(store: Store, event: threading.Event, *, limit_s: float = 30.0) -> None:
    until = time.monotonic() + limit_s
    abortable(lambda: event.wait(60.0), until=until, signal=AbortSignal(store), otherwise="took too long")


def test_an_operation_returns_its_result_and_raises_its_error() -> None:
    store = server()
    signal, until = AbortSignal(member(store)), time.monotonic() + 30.0
    assert abortable(lambda: 7, until=until, signal=signal, otherwise="") == 7
    with pytest.raises(TimeoutError, match="of the call itself"):
        abortable(lambda: _raise(TimeoutError("of the call itself")), until=until, signal=signal, otherwise="")


def test_an_abort_ends_an_operation_that_hangs() -> None:
    store, hung = server(), threading.Event()
    other = member(store)
    timer = threading.Timer(0.3, lambda: other.set(ABORTED, "rollout-2: killed"))
    began = time.monotonic()
    timer.start()
    with pytest.raises(RuntimeError, match="aborted: rollout-2: killed"):
        run(member(store), hung)
    assert time.monotonic() - began < 10.0
    hung.set()


def test_a_learner_that_is_gone_ends_an_operation_that_hangs() -> None:
    store, hung = server(), threading.Event()
    signal = AbortSignal(member(store))
    del store
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="the learner has left the group"):
        abortable(lambda: hung.wait(60.0), until=began + 30.0, signal=signal, otherwise="took too long")
    assert time.monotonic() - began < 10.0
    hung.set()


def test_without_an_abort_the_deadline_ends_it() -> None:
    store, hung = server(), threading.Event()
    with pytest.raises(RuntimeError, match="took too long"):
        run(member(store), hung, limit_s=0.3)
    hung.set()


def test_a_store_that_hangs_does_not_delay_the_deadline() -> None:
    hung = threading.Event()

    class Hanging:
        def clone(self) -> Hanging:
            return self

        def check(self, keys: list[str]) -> bool:
            return hung.wait(60.0)

    began = time.monotonic()
    with pytest.raises(RuntimeError, match="took too long"):
        run(Hanging(), hung, limit_s=0.4)  # type: ignore[arg-type]
    assert time.monotonic() - began < 10.0
    hung.set()


def _raise(error: Exception) -> None:
    raise error
