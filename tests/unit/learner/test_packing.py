"""Who trains on what: complete, equal on all ranks, balanced, within the limit."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.packing import SequenceRef, balance, best_fit, make_units, packed_tokens, plan_step
from r1ray.errors import ConfigError
from r1ray.types import BatchManifest, GroupSummary


def manifest(lengths_of_groups, prompt_tokens=3, step=0):
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
    return BatchManifest(step=step, groups=groups)


def units(*tokens):
    return [[SequenceRef(group=0, completion=i, tokens=t)] for i, t in enumerate(tokens)]


def group_of(group, prompt, *completions):
    return [SequenceRef(group=group, completion=c, tokens=prompt + t, shared=prompt) for c, t in enumerate(completions)]


def tokens(micro_batches):
    return [[s.tokens for s in sequences] for sequences in micro_batches]


def test_the_example_of_the_docstring():
    plan = plan_step(manifest([[5, 3], [2, 1]], prompt_tokens=1), minibatches=1, ranks=2, micro_batch_tokens=8)[0]
    assert [tokens(rank) for rank in plan.micro_batches] == [[[6, 2]], [[4, 3]]]


def test_best_fit_fills_the_fullest_bin_that_has_room():
    def bins(*sizes, capacity):
        return [[packed_tokens(unit) for unit in part] for part in best_fit(units(*sizes), capacity)]

    assert bins(4, 3, 6, 2, 5, capacity=10) == [[6, 4], [5, 3, 2]]
    assert bins(12, 10, 9, 1, capacity=20) == [[12], [10, 9, 1]]  # first fit would put the 1 beside the 12
    assert best_fit([], 10) == []


def test_balance_gives_the_next_longest_to_the_lightest_rank():
    shares = balance(units(9, 7, 6, 5, 4), 2, 10)
    assert [[packed_tokens(unit) for unit in share] for share in shares] == [[9, 5], [7, 6, 4]]


def test_a_shared_prompt_is_counted_once_for_each_micro_batch_that_has_it():
    assert packed_tokens([*group_of(0, 10, 4, 3), *group_of(1, 5, 2)]) == 10 + 4 + 3 + 5 + 2
    assert packed_tokens(units(9, 7)[0]) == 9


def test_a_group_that_exceeds_the_limit_is_packed_in_parts_each_with_the_prompt():
    found = make_units(group_of(0, 10, 6, 5, 4, 3), 20)
    assert [[s.tokens - 10 for s in unit] for unit in found] == [[6, 4], [5, 3]]
    assert [packed_tokens(unit) for unit in found] == [20, 18]


def test_completions_move_to_an_idle_rank_and_take_their_prompt_along():
    """One group for two ranks: 10 + 16 tokens become 10 + 10 and 10 + 6, not 26 and 0."""
    shares = balance([group_of(0, 10, 6, 4, 4, 2)], 2, 50)
    loads = [sum(packed_tokens(unit) for unit in share) for share in shares]
    assert sorted(loads) == [18, 18]
    assert [len(share) for share in shares] == [1, 1]  # the second completion that moves joins the first


def test_sequences_of_a_shared_prompt_are_side_by_side_even_if_they_are_parts_of_a_group():
    """Limit 20: the group is packed as 10 + 6 + 4 and 10 + 1;
    the second has room for a sequence of another group only.
    """
    batch = manifest([[6, 4, 1], [2]], prompt_tokens=10)
    plan = plan_step(batch, minibatches=1, ranks=1, micro_batch_tokens=20, share_prompts=True)[0]
    assert [[(s.group, s.completion) for s in b] for b in plan.micro_batches[0]] == [
        [(0, 0), (0, 1)],
        [(1, 0)],
        [(0, 2)],
    ]
    whole = plan_step(batch, minibatches=1, ranks=1, micro_batch_tokens=35, share_prompts=True)[0]
    assert [packed_tokens(b) for b in whole.micro_batches[0]] == [10 + 6 + 4 + 1 + 10 + 2]


def test_of_silent_completions_one_is_packed_and_stands_for_the_others():
    """Of kind (0, 2, 3) of the group at index 1 the sample at step 4 is number (4 + 1) % 3, completion 3."""
    batch = manifest([[5, 5], [4, 3, 2, 1]], step=4)
    plan = plan_step(batch, minibatches=1, ranks=1, micro_batch_tokens=50, silent=[[], [[0, 2, 3]]])[0]
    (micro_batch,) = plan.micro_batches[0]
    assert {(s.group, s.completion, s.stands_for) for s in micro_batch} == {
        (0, 0, ()),
        (0, 1, ()),
        (1, 1, ()),
        (1, 3, (0, 2)),
    }


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
    st.booleans(),
)
def test_plans_are_complete_within_limits_and_aligned(lengths, minibatches, ranks, limit, share):
    batch = manifest(lengths)
    make = partial(plan_step, minibatches=minibatches, ranks=ranks, micro_batch_tokens=limit, share_prompts=share)
    plans = make(batch)
    assert plans == make(batch)
    seen = []
    for plan in plans:
        assert len(plan.micro_batches) == ranks
        assert len({len(rank) for rank in plan.micro_batches}) == 1  # collectives line up
        longest = max((s.tokens for rank in plan.micro_batches for b in rank for s in b), default=0)
        loads = [sum(packed_tokens(micro_batch) for micro_batch in rank) for rank in plan.micro_batches]
        # Parts of a group that meet in a micro-batch have the prompt once although they were balanced with it twice.
        assert max(loads) - min(loads) <= longest + (3 * len(lengths) if share else 0)
        for rank in plan.micro_batches:
            for micro_batch in rank:
                assert packed_tokens(micro_batch) <= limit
                seen += [(s.group, s.completion) for s in micro_batch]
                assert all(s.tokens == 3 + lengths[s.group][s.completion] for s in micro_batch)
                assert all(s.group in plan.groups for s in micro_batch)
                order = [s.group for s in micro_batch]
                runs = [g for i, g in enumerate(order) if i == 0 or order[i - 1] != g]
                assert not share or len(runs) == len(set(runs))  # side by side
    assert sorted(seen) == [(g, c) for g, row in enumerate(lengths) for c in range(len(row))]  # each exactly once


def test_packing_wastes_little_on_a_realistic_batch():
    """256 sequences of 25 to 125 tokens into 4,096: fewer than one micro-batch more than the ideal."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.gamma(2.5, 11.4, (32, 8)), 10, 110).astype(int)
    plan = plan_step(manifest(lengths.tolist(), prompt_tokens=15), minibatches=1, ranks=1, micro_batch_tokens=4096)[0]
    assert len(plan.micro_batches[0]) == int(np.ceil((lengths + 15).sum() / 4096))


def test_sharing_prompts_saves_what_it_promises():
    """32 groups of 8 completions of 31 tokens behind 20: 51 x 8 rows become 20 + 31 x 8."""
    batch = manifest([[31] * 8] * 32, prompt_tokens=20)
    rows = {
        share: sum(
            packed_tokens(b)
            for plan in plan_step(batch, minibatches=1, ranks=2, micro_batch_tokens=4096, share_prompts=share)
            for rank in plan.micro_batches
            for b in rank
        )
        for share in (False, True)
    }
    assert rows == {False: 32 * 408, True: 32 * 268}
