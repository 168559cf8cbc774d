"""How a packed row is cut among the ranks of a sequence group, without processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from learner.batch import PackedTokens, pack_tokens
from learner.preference.model import pack_examples
from learner.preference.rows import Example
from learner.sequence import SequenceGroup, share_rows
from r1ray.preflight.memory import key_value_copies

CPU = torch.device("cpu")
PROMPTS = [np.array(p, dtype=np.int32) for p in ([1, 2], [1, 2], [5])]
COMPLETIONS = [np.array(c, dtype=np.int32) for c in ([3, 4], [9], [6])]


def on_ranks(size: int, groups: list[int] | None = None) -> list[PackedTokens]:
    return [
        pack_tokens(
            PROMPTS,
            COMPLETIONS,
            [0.5, 1.0, 2.0],
            CPU,
            groups=groups,
            shared_by=SequenceGroup(rank=rank, size=size),
        )
        for rank in range(size)
    ]


def test_the_example_of_share_rows() -> None:
    made = [share_rows(np.array([0, 3, 1]), 4, SequenceGroup(rank=rank, size=2), CPU) for rank in (0, 1)]
    assert [(mine.tolist(), source.tolist()) for _, mine, source in made] == [([0, 2], [0, 1]), ([1], [1])]
    for shares, _, _ in made:
        assert (shares.most, shares.place_T.tolist()) == (2, [0, 2, 1])


def test_a_row_by_hand() -> None:
    """Rows 1 2 3 4 | 9 5 6 and a filler; completions 3, 4, 9, 6 are predicted from rows 1, 2, 1 and 5."""
    first, second = on_ranks(2, [7, 7, 3])
    assert [t.input_ids_R.tolist() for t in (first, second)] == [[1, 2, 3, 4], [9, 5, 6, 0]]
    assert [t.position_ids_R.tolist() for t in (first, second)] == [[0, 1, 2, 3], [2, 0, 1, 0]]
    assert [t.source_M.tolist() for t in (first, second)] == [[1, 2, 1], [1]]
    assert [t.target_M.tolist() for t in (first, second)] == [[3, 4, 9], [6]]
    assert [t.temperature_M.tolist() for t in (first, second)] == [[0.5, 0.5, 1.0], [2.0]]
    for tokens in (first, second):
        assert tokens.segment_T.tolist() == [0, 0, 1, 2]
        assert tokens.lengths_S.tolist() == [2.0, 1.0, 1.0]
        assert len(tokens.layout.positions_N) == 8


@pytest.mark.parametrize("size", [2, 3, 4, 5, 16])
@pytest.mark.parametrize("groups", [None, [7, 7, 3]])
def test_the_slices_are_the_row_and_what_was_gathered_is_in_order(size: int, groups: list[int] | None) -> None:
    """With 16 ranks some have fillers only, and most have no completion token."""
    whole = pack_tokens(PROMPTS, COMPLETIONS, [0.5, 1.0, 2.0], CPU, groups=groups)
    parts = on_ranks(size, groups)
    joined = torch.cat([t.input_ids_R for t in parts])
    rows = len(whole.input_ids_R)
    assert torch.equal(joined[:rows], whole.input_ids_R)
    assert len(joined) == -(-rows // size) * size
    assert {len(t.input_ids_R) for t in parts} == {len(joined) // size}

    def gathered(values: list[Tensor]) -> Tensor:
        padded = [torch.cat([v, v.new_full((parts[0].shares.most - len(v),), -1)]) for v in values]
        return torch.cat(padded)[parts[0].shares.place_T]

    assert torch.equal(gathered([t.target_M for t in parts]), whole.target_M)
    assert torch.equal(gathered([t.temperature_M for t in parts]), whole.temperature_M)
    for tokens in parts:
        ids = tokens.input_ids_R[tokens.source_M]
        assert torch.equal(ids, whole.input_ids_R[whole.source_M][tokens.shares.mine_M])
        assert tokens.layout.longest == whole.layout.longest or size == 16


def test_last_tokens_of_a_reward_model_are_shared_alike() -> None:
    pair = Example(sequences=(np.arange(1, 6, dtype=np.int32), np.arange(6, 8, dtype=np.int32)), lengths=(1, 1))
    parts = [pack_examples([pair], CPU, SequenceGroup(rank=rank, size=4)) for rank in range(4)]
    assert torch.cat([p.input_ids_R for p in parts]).tolist() == [1, 2, 3, 4, 5, 6, 7, 0]
    assert [p.input_ids_R[p.last_M].tolist() for p in parts] == [[], [], [5], [7]]
    assert all(p.shares.place_T.tolist() == [2, 3] for p in parts)


@pytest.mark.parametrize(("heads", "ranks", "copies"), [(8, 4, 1), (2, 4, 2), (1, 8, 8), (3, 2, 2), (4, 6, 3)])
def test_copies_of_key_value_heads_are_the_fewest_that_ranks_divide(heads: int, ranks: int, copies: int) -> None:
    assert key_value_copies(heads, ranks) == copies
    assert min(c for c in range(1, 65) if heads * c % ranks == 0) == copies
