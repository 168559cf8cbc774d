"""Memory that is lent again once no tensor uses it."""

from __future__ import annotations

import torch

from r1ray.transport.memory import KeptMemory, host_memory


def test_memory_is_lent_again_once_no_tensor_uses_it() -> None:
    kept = KeptMemory()
    first = kept.lend(4096)
    place = first.data_ptr()
    view = first[100:108].view(torch.float32)
    del first
    second = kept.lend(4096)
    assert second.data_ptr() != place
    view.fill_(3.0)
    assert view.tolist() == [3.0, 3.0]
    del view
    assert kept.lend(4096).data_ptr() == place


def test_memory_is_lent_by_size() -> None:
    kept = KeptMemory()
    places = {nbytes: kept.lend(nbytes).data_ptr() for nbytes in (16, 9 << 20)}
    for nbytes in (9 << 20, 16):
        lent = kept.lend(nbytes)
        assert (lent.data_ptr(), lent.numel(), lent.dtype) == (places[nbytes], nbytes, torch.uint8)
        lent.fill_(7)


def test_no_memory_is_an_empty_tensor() -> None:
    assert KeptMemory().lend(0).numel() == host_memory(0).numel() == 0
