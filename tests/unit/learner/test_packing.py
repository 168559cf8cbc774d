"""Who trains on what: complete, equal on all ranks, balanced, within the limit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.packing import SequenceRef, balance, best_fit, plan_step
from r1ray.errors import ConfigError
from r1ray.types import BatchManifest, GroupSummary


def manifest(lengths_of_groups, prompt_tokens=3):
    groups = tuple(
        GroupSummary(
            group_id=f"{i}-0",
            index=i,
            prompt_tokens=prompt_tokens,
            completion_tokens=tuple(lengths),
            rewards=(0.0,) * len(lengths),
            min_policy_version=0,
            max_policy_version=0,
        )
        for i, lengths in enumerate(lengths_of_groups)
    )
    return BatchManifest(step=0, groups=groups)


def refs(*tokens):
    return [SequenceRef(group=0, completion=i, tokens=t) for i, t in enumerate(tokens)]


def tokens(micro_batches):
    return [[s.tokens for s in sequences] for sequences in micro_batches]


def test_the_example_of_the_docstring():
    plan = plan_step(manifest([[5, 3], [2, 1]], prompt_tokens=1), minibatches=1, ranks=2, micro_batch_tokens=8)[0]
    assert [tokens(rank) for rank in plan.micro_batches] == [[[6, 2]], [[4, 3]]]


def test_best_fit_fills_the_fullest_bin_that_has_room():
    assert tokens(best_fit(refs(4, 3, 6, 2, 5), 10)) == [[6, 4], [5, 3, 2]]
    assert tokens(best_fit(refs(12, 10, 9, 1), 20)) == [[12], [10, 9, 1]]  # first fit would put the 1 beside the 12
    assert best_fit([], 10) == []


def test_balance_gives_the_next_longest_to_the_lightest_rank():
    shares = balance(refs(9, 7, 6, 5, 4), 2)
    assert [[s.tokens for s in share] for share in shares] == [[9, 5], [7, 6, 4]]


def test_minibatches_have_equally_many_groups_and_mix_early_with_late_ones():
    plans = plan_step(manifest([[5]] * 6), minibatches=2, ranks=1, micro_batch_tokens=50)
    assert [p.groups for p in plans] == [(0, 2, 4), (1, 3, 5)]


def test_a_rank_with_less_to_do_gets_empty_micro_batches():
    plan = plan_step(manifest([[7], [6], [6]]), minibatches=1, ranks=2, micro_batch_tokens=10)[0]
    assert [tokens(rank) for rank in plan.micro_batches] == [[[10], []], [[9], [9]]]


def test_ranks_need_not_divide_the_completions_nor_be_as_few():
    plan = plan_step(manifest([[7], [6]]), minibatches=1, ranks=3, micro_batch_tokens=10)[0]
    assert [tokens(rank) for rank in plan.micro_batches] == [[[10]], [[9]], [[]]]


def test_a_sequence_that_fits_nowhere_is_a_configuration_error():
    with pytest.raises(ConfigError, match=r"13 tokens does not fit learner\.micro_batch_tokens=12"):
        plan_step(manifest([[10]]), minibatches=1, ranks=1, micro_batch_tokens=12)


@given(
    st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=6), min_size=1, max_size=8),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(43, 100),
)
def test_plans_are_complete_within_limits_and_aligned(lengths, minibatches, ranks, limit):
    batch = manifest(lengths)
    plans = plan_step(batch, minibatches=minibatches, ranks=ranks, micro_batch_tokens=limit)
    assert plans == plan_step(batch, minibatches=minibatches, ranks=ranks, micro_batch_tokens=limit)
    seen = []
    for plan in plans:
        assert len(plan.micro_batches) == ranks
        assert len({len(rank) for rank in plan.micro_batches}) == 1  # collectives line up
        loads = [sum(s.tokens for micro_batch in rank for s in micro_batch) for rank in plan.micro_batches]
        longest = max((s.tokens for rank in plan.micro_batches for b in rank for s in b), default=0)
        assert max(loads) - min(loads) <= longest
        for rank in plan.micro_batches:
            for micro_batch in rank:
                assert sum(s.tokens for s in micro_batch) <= limit
                seen += [(s.group, s.completion) for s in micro_batch]
                assert all(s.tokens == 3 + lengths[s.group][s.completion] for s in micro_batch)
                assert all(s.group in plan.groups for s in micro_batch)
    assert sorted(seen) == [(g, c) for g, row in enumerate(lengths) for c in range(len(row))]  # each exactly once


def test_packing_wastes_little_on_a_realistic_batch():
    """256 sequences of 25 to 125 tokens into 4,096: fewer than one micro-batch more than the ideal."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.gamma(2.5, 11.4, (32, 8)), 10, 110).astype(int)
    plan = plan_step(manifest(lengths.tolist(), prompt_tokens=15), minibatches=1, ranks=1, micro_batch_tokens=4096)[0]
    assert len(plan.micro_batches[0]) == int(np.ceil((lengths + 15).sum() / 4096))
