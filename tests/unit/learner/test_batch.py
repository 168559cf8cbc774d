"""The layout of a packed row and the tensors of a micro-batch, by hand."""

import numpy as np
import pytest
import torch

from learner.attention import make_layout
from learner.batch import Sequence, make_micro_batch, pack_tokens

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
