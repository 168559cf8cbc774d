"""Rows of preferences, what is held out, and the figures of the report. No torch."""

import json

import pytest

from learner.preference.report import measure
from learner.preference.rows import Example, hold_out, read_examples
from r1ray.errors import ConfigError


class Letters:
    eos_token_id = 0
    chat_template = None

    def encode(self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False) -> list[int]:
        return [ord(c) for c in text]


def read(tmp_path, *rows, kind="pairwise", judge="summary", max_length=100):
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n\n")
    return read_examples(file, Letters(), kind=kind, judge=judge, max_length=max_length)


def test_pairs_are_read_without_their_thinking_and_safety_rows_with_it(tmp_path):
    pair = {"prompt": "Hi", "chosen": "<think>long</think>yes", "rejected": "no"}
    [example], too_long = read(tmp_path, pair, {**pair, "chosen": "y" * 100})
    assert ["".join(map(chr, s)) for s in example.sequences] == ["User: Hi\nAssistant: yes", "User: Hi\nAssistant: no"]
    assert example.lengths == (3, 2)
    assert too_long == 1
    row = {"messages": [{"role": "user", "content": "Hi"}], "response": "<think>bomb</think>no", "safe": False}
    [example], _ = read(tmp_path, row, kind="pointwise", judge="response")
    assert "".join(map(chr, example.sequences[0])).endswith("<think>bomb</think>no")
    assert example.safe is False


def test_only_a_newline_ends_a_row(tmp_path):
    rows = [
        json.dumps({"prompt": f"a{mark}b", "chosen": "y", "rejected": "n"}, ensure_ascii=False)
        for mark in "\u2028\u2029\x85"
    ]
    examples, _ = read(tmp_path, *rows)
    assert len(examples) == 3


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ("{", "pairwise", "line 2: no JSON"),
        ([1], "pairwise", "line 2: no JSON object"),
        ({"prompt": "a", "chosen": "b"}, "pairwise", "line 2: `rejected` = None must be a text"),
        ({"prompt": "a", "response": "b", "safe": "yes"}, "pointwise", "line 2: `safe` = 'yes' must be true or false"),
        ({"messages": [], "response": "b", "safe": True}, "pointwise", "line 2: `messages` must be a list"),
    ],
)
def test_a_row_of_another_kind_is_refused_with_its_line(tmp_path, row, kind, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, "", row, kind=kind)


def pair(prompt: str, chosen: int, rejected: int) -> Example:
    return Example(prompt=prompt, sequences=((1,) * chosen, (1,) * rejected), lengths=(chosen, rejected))


def test_no_prompt_is_both_trained_on_and_held_out():
    examples = [pair(str(i % 10), 1, 2) for i in range(40)]
    train, held_out = hold_out(examples, 0.2, seed=0)
    assert len(held_out) == 8
    assert not {e.prompt for e in train} & {e.prompt for e in held_out}
    assert hold_out(examples, 0.2, seed=0) == (train, held_out)
    with pytest.raises(ConfigError, match="at least 2"):
        hold_out(examples[:1], 0.2, seed=0)


def test_the_report_of_pairs_tells_accuracy_from_length():
    pairs = [pair("a", 9, 3), pair("b", 2, 8), pair("c", 5, 5), pair("d", 7, 1)]
    by_length = [float(n) for p in pairs for n in p.lengths]
    assert measure("pairwise", pairs, by_length) == {
        "rows": 4.0,
        "accuracy": 0.625,  # right, wrong, a tie, right
        "longer_preferred": 1.0,
        "longer_chosen": pytest.approx(2 / 3),
        "length_correlation": pytest.approx(1.0),
    }
    always_right = [1.0, 0.0] * 4
    assert measure("pairwise", pairs, always_right)["accuracy"] == 1.0
    assert measure("pairwise", [pair("c", 5, 5)], [1.0, 0.0])["longer_preferred"] is None


def test_the_report_of_safety_counts_what_is_judged_safe():
    rows = [Example(prompt=str(n), sequences=((1,),), lengths=(n,), safe=n > 2) for n in (1, 2, 3, 4)]
    figures = measure("pointwise", rows, [-1.0, 1.0, 1.0, 1.0])
    assert figures["accuracy"] == 0.75
    assert (figures["safe"], figures["judged_safe"]) == (0.5, 0.75)
    assert 0 < figures["length_correlation"] < 1
