"""The layout of a packed row and the tensors of a micro-batch, by hand."""

from functools import partial

import numpy as np
import pytest
import torch

from learner.attention import make_layout
from learner.batch import Sequence, make_micro_batch, pack_tokens
from learner.sequence import SequenceGroup
from r1ray.types import RoutedExperts

CPU = torch.device("cpu")


def test_the_example_of_the_docstring():
    layout = make_layout([3, 2], CPU)
    assert layout.boundaries.tolist() == [0, 3, 5]
    assert layout.boundaries.dtype == torch.int32
    assert layout.longest == 3
    assert [b.tolist() for b in layout.blocks] == [[[0, 1, 2]], [[3, 4]]]  # 2 < 0.7 * 3: a block of its own
    assert layout.positions_N.tolist() == [0, 1, 2, 3, 4]


def test_similar_lengths_share_a_block_padded_on_the_right():
    layout = make_layout([3, 4], CPU)
    assert [b.tolist() for b in layout.blocks] == [[[3, 4, 5, 6], [0, 1, 2, 2]]]
    assert layout.positions_N.tolist() == [4, 5, 6, 0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(4))
def test_gather_then_scatter_is_the_identity_and_padding_is_bounded(seed):
    lengths = np.random.default_rng(seed).integers(1, 120, 40).tolist()
    layout = make_layout(lengths, CPU)
    row = torch.arange(sum(lengths))
    padded = torch.cat([row[b.reshape(-1)] for b in layout.blocks])
    assert torch.equal(padded[layout.positions_N], row)
    assert len(padded) < sum(lengths) / 0.7


def test_packed_tokens_by_hand():
    """Sequences (1 2 | 3 4) and (5 | 6): tokens 3, 4 and 6 are predicted from rows 1, 2 and 4."""
    prompts = [np.array([1, 2], dtype=np.int32), np.array([5], dtype=np.int32)]
    completions = [np.array([3, 4], dtype=np.int32), np.array([6], dtype=np.int32)]
    packed = pack_tokens(prompts, completions, [0.5, 2.0], CPU)
    assert packed.input_ids_R.tolist() == [1, 2, 3, 4, 5, 6]
    assert packed.position_ids_R.tolist() == [0, 1, 2, 3, 0, 1]
    assert packed.source_M.tolist() == [1, 2, 4]
    assert packed.target_M.tolist() == [3, 4, 6]
    assert packed.temperature_M.tolist() == [0.5, 0.5, 2.0]
    assert packed.segment_T.tolist() == [0, 0, 1]
    assert packed.lengths_S.tolist() == [2.0, 1.0]


def test_packed_tokens_with_a_shared_prompt_by_hand():
    """Sequences (1 2 | 3 4), (1 2 | 9) and (5 | 6): rows 1 2 3 4 9 5 6, and 3 and 9 are predicted from the same row."""
    prompts = [np.array(p, dtype=np.int32) for p in ([1, 2], [1, 2], [5])]
    completions = [np.array(c, dtype=np.int32) for c in ([3, 4], [9], [6])]
    packed = pack_tokens(prompts, completions, [0.5, 1.0, 2.0], CPU, groups=[7, 7, 3])
    assert packed.input_ids_R.tolist() == [1, 2, 3, 4, 9, 5, 6]
    assert packed.position_ids_R.tolist() == [0, 1, 2, 3, 2, 0, 1]
    assert packed.source_M.tolist() == [1, 2, 1, 5]
    assert packed.target_M.tolist() == [3, 4, 9, 6]
    assert packed.temperature_M.tolist() == [0.5, 0.5, 1.0, 2.0]
    assert packed.segment_T.tolist() == [0, 0, 1, 2]
    assert packed.lengths_S.tolist() == [2.0, 1.0, 1.0]
    assert packed.layout.boundaries is None
    assert packed.layout.longest == 4
    assert [b.tolist() for b in packed.layout.blocks] == [[[0, 1, 2, 3], [0, 1, 4, 4]], [[5, 6]]]


def experts_of(*first):
    return RoutedExperts(ids=np.array([[[i, 9]] for i in first], dtype=np.uint8), every=2)


def test_recorded_experts_stand_at_the_rows_that_predict_their_tokens():
    """As above, with the experts of every second token of the completions (3 4 8), none, and (6)."""
    prompts = [np.array(p, dtype=np.int32) for p in ([1, 2], [1, 2], [5])]
    completions = [np.array(c, dtype=np.int32) for c in ([3, 4, 8], [9], [6])]
    made = partial(pack_tokens, prompts, completions, [1.0] * 3, CPU)
    recorded = made(experts=[experts_of(4, 5), None, experts_of(6)]).experts
    assert recorded.token_Q.tolist() == [0, 2, 4]
    assert recorded.row_Q.tolist() == [1, 3, 8]
    assert recorded.experts_QLK.tolist() == [[[4, 9]], [[5, 9]], [[6, 9]]]
    assert made(experts=[None] * 3).experts is None

    shared = made(groups=[7, 7, 3], experts=[experts_of(4, 5), experts_of(7), experts_of(6)]).experts
    assert shared.row_Q.tolist() == [1, 3, 1, 6]  # 3 and 9 are predicted from the same row
    assert shared.first_F.tolist() == [0, 1, 3]


def test_each_rank_of_a_sequence_group_has_the_recorded_experts_of_its_own_rows():
    """Rows 1 2 3 4 8 | 1 2 9 5 6: rank 0 has the rows that predict 3, 4 and 8."""
    prompts = [np.array(p, dtype=np.int32) for p in ([1, 2], [1, 2], [5])]
    completions = [np.array(c, dtype=np.int32) for c in ([3, 4, 8], [9], [6])]
    experts = [experts_of(4, 5), experts_of(7), experts_of(6)]
    found = []
    for rank in range(2):
        packed = pack_tokens(
            prompts, completions, [1.0] * 3, CPU, shared_by=SequenceGroup(rank=rank, size=2), experts=experts
        )
        recorded = packed.experts
        found += [(rank, recorded.token_Q.tolist(), recorded.row_Q.tolist(), recorded.experts_QLK[:, 0, 0].tolist())]
        assert torch.equal(recorded.row_Q, packed.source_M[torch.searchsorted(packed.shares.mine_M, recorded.token_Q)])
    assert found == [(0, [0, 2], [1, 3], [4, 5]), (1, [3, 4], [1, 3], [7, 6])]


def test_micro_batch_spreads_advantages_over_tokens():
    made = make_micro_batch(
        [
            Sequence(
                prompt=np.array([1], dtype=np.int32),
                completion=np.array([2] * n, dtype=np.int32),
                temperature=1.0,
                behavior_logprobs=np.full(n, -float(n), dtype=np.float32),
                versions=np.full(n, n, dtype=np.int64),
                advantage=a,
                trained=a > 0,
            )
            for n, a in ((2, 0.5), (1, -1.0))
        ],
        CPU,
    )
    assert made.advantages_T.tolist() == [0.5, 0.5, -1.0]
    assert made.behavior_logprobs_T.tolist() == [-2.0, -2.0, -1.0]
    assert made.versions_T.tolist() == [2, 2, 1]
    assert made.trained_S.tolist() == [1.0, 0.0]
    assert made.sequences == 2
