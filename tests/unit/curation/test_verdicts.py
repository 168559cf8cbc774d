"""Duplicates, how many of a prompt, quotas: who stays is decided by the rules alone,
and every sample has one verdict.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from r1ray.config.schema import CurationConfig
from r1ray.curation.general import GeneralRow
from r1ray.curation.similar import Seen
from r1ray.curation.verdicts import REASONS, Verdicts, judge, judge_general
from r1ray.sampling.store import SampleRow
from tests.unit.curation_support import GOOD, prompts, sample


def reasons(samples: list[SampleRow], config: CurationConfig, seed: int = 0) -> list[str | None]:
    verdicts = Verdicts()
    seen = Seen(config.dataset_similarity) if config.dataset_similarity is not None else None
    judge(verdicts, samples, config, seed, seen)
    verdicts.apply_quotas(config.quotas)
    return list(verdicts)


def test_the_shortest_or_longest_of_a_prompt_stay() -> None:
    rows = [replace(row, tokens=tokens) for row, tokens in zip(prompts(1, 4), (30, 10, 40, 20), strict=True)]
    drop = "per_prompt"
    assert reasons(rows, CurationConfig(per_prompt=2, choice="shortest")) == [drop, None, drop, None]
    assert reasons(rows, CurationConfig(per_prompt=1, choice="longest")) == [drop, drop, None, drop]


def test_chance_is_a_function_of_the_seed_and_the_sample() -> None:
    rows = prompts(40, 4)
    config = CurationConfig(per_prompt=1)
    first = reasons(rows, config)
    assert first == reasons(rows, config)
    assert first != reasons(rows, config, seed=1)
    assert [r.index for r, why in zip(rows, first, strict=True) if why is None] == list(range(40))
    assert len({r.sample for r, why in zip(rows, first, strict=True) if why is None}) == 4


def test_a_dropped_sample_takes_no_place_of_its_prompt() -> None:
    rows = prompts(1, 3)
    rows[0] = replace(rows[0], tokens=1, parts={"accuracy": 0.0})
    assert reasons(rows, CurationConfig(per_prompt=2, choice="shortest")) == ["incorrect", None, None]


def test_duplicates_within_a_prompt_are_compared_by_the_response_alone() -> None:
    long_question = ({"role": "user", "content": "What is the sum of 7 and 5? " * 50},)
    same, other = GOOD, "<think>Seven, eight, nine and so on up to twelve.</think> <answer>12</answer>"
    rows = [sample(text, sample=i, tokens=20 + i, messages=long_question) for i, text in enumerate([same, other, same])]
    config = CurationConfig(prompt_similarity=0.9, choice="shortest")
    assert reasons(rows, config) == [None, None, "duplicate"]
    # of the whole dataset, prompts are compared with each other, not with themselves
    assert reasons(rows, CurationConfig(dataset_similarity=0.9)) == [None, None, None]
    elsewhere = [replace(row, index=1, prompt_id="sums/1") for row in rows]
    assert reasons(rows + elsewhere, CurationConfig(dataset_similarity=0.9)) == [None] * 3 + ["duplicate"] * 3


def test_the_same_answer_to_other_questions_is_no_duplicate() -> None:
    text = "<think>Easy enough.</think> <answer>yes</answer>"
    asked = [({"role": "user", "content": f"Is it so that {' '.join('abcdefgh'[i:])} follows?"},) for i in range(8)]
    rows = [sample(text, index=i, messages=asked[i % 8]) for i in range(8)]
    assert reasons(rows, CurationConfig(dataset_similarity=0.9)) == [None] * 8


def test_quotas_keep_as_many_prompts_as_they_can() -> None:
    rows = prompts(10, 3) + prompts(5, 3, source="other")
    verdicts = reasons(rows, CurationConfig(quotas={"sums": 12, "absent": 1}))
    kept = [row for row, why in zip(rows, verdicts, strict=True) if why is None]
    assert Counter(row.source for row in kept) == {"sums": 12, "other": 15}
    assert len({row.index for row in kept if row.source == "sums"}) == 10
    assert Counter(verdicts)["quota"] == 18


def test_a_row_may_name_its_domain_and_quotas_go_by_it() -> None:
    rows = [replace(row, meta={"domain": "logic"}) if row.index < 4 else row for row in prompts(10)]
    verdicts = reasons(rows, CurationConfig(quotas={"logic": 1}))
    assert Counter(verdicts[:4]) == {None: 1, "quota": 3}
    assert verdicts[4:] == [None] * 6


def test_general_rows_share_duplicates_and_quotas_with_the_samples() -> None:
    ask = ({"role": "user", "content": "Write a poem about the sea"},)
    poem = "The sea is wide, the sea is deep, the sea sings everyone to sleep."
    rows = [
        GeneralRow(source="chat", row_id=str(i), domain="sums", prompt=ask, response=text)
        for i, text in enumerate([poem, poem, "No."])
    ]
    verdicts = Verdicts()
    seen = Seen(0.9)
    judge(verdicts, prompts(2), CurationConfig(), 0, seen)
    judge_general(verdicts, rows, CurationConfig(), 0, seen)
    assert list(verdicts) == [None, None, None, "duplicate", None]
    verdicts.apply_quotas({"sums": 3})
    assert Counter(verdicts) == {None: 3, "duplicate": 1, "quota": 1}


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(1, 9)), max_size=24), st.integers(1, 3))
def test_every_sample_has_one_verdict_and_no_limit_is_passed(shape: list[tuple[int, bool, int]], most: int) -> None:
    rows = []
    for number, (index, right, tokens) in enumerate(sorted(shape, key=lambda row: row[0])):
        parts = {"accuracy": float(right)}
        rows.append(sample(GOOD + str(number), index=index, sample=number, tokens=tokens, parts=parts))
    config = CurationConfig(per_prompt=most, quotas={"sums": 5}, prompt_similarity=1.0, dataset_similarity=1.0)
    verdicts = reasons(rows, config)
    assert len(verdicts) == len(rows)
    assert {why for why in verdicts if why} <= set(REASONS)
    kept = [row for row, why in zip(rows, verdicts, strict=True) if why is None]
    assert all(row.parts["accuracy"] == 1.0 for row in kept)
    assert max(Counter(row.index for row in kept).values(), default=0) <= most
    assert len(kept) <= 5
