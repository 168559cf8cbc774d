"""Taking responses apart: whole, cut into any pieces, and broken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ray.util.responses import ReflectiveWords, Splitter, pieces


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>7+5=12</think><answer>12</answer>", [("thinking", "7+5=12"), ("answer", "12")]),
        ("<think>a</think>\n\nThe answer is 12.", [("thinking", "a"), ("plain", "The answer is 12.")]),
        ("opened by the prompt</think>12", [("thinking", "opened by the prompt"), ("plain", "12")]),
        ("<think>never ends <answer>12</answer>", [("thinking", "never ends <answer>12</answer>")]),
        ("18 people", [("plain", "18 people")]),
        ("x <answer>1</answer> y", [("plain", "x"), ("answer", "1"), ("plain", "y")]),
        ("</answer> stray </think", [("plain", "</answer> stray </think")]),
        ("", []),
        ("12 <|im_end|>", [("plain", "12 <|im_end|>")]),
    ],
)
def test_a_response_is_split_into_what_it_is(text, expected):
    assert pieces(text) == expected


def test_a_tag_may_be_cut_anywhere():
    splitter = Splitter()
    assert splitter.feed("<thi") == []
    assert splitter.feed("nk>a<") == [("thinking", "a")]
    assert splitter.feed("b</think>c") == [("thinking", "<b"), ("plain", "c")]
    assert splitter.end() == []


def test_what_only_looked_like_a_tag_comes_out_at_the_end():
    splitter = Splitter(thinking=True)
    assert splitter.feed("a </th") == [("thinking", "a ")]
    assert splitter.end() == [("thinking", "</th")]


def joined(parts):
    out: list[tuple[str, str]] = []
    for kind, text in parts:
        if out and out[-1][0] == kind:
            out[-1] = (kind, out[-1][1] + text)
        else:
            out.append((kind, text))
    return out


@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "<", "th", "ink>", "a", " "]), max_size=12
    ),
    st.integers(1, 7),
)
def test_the_pieces_do_not_depend_on_how_the_text_arrives(words, size):
    text = "".join(words)
    whole, bits = Splitter(), Splitter()
    at_once = whole.feed(text) + whole.end()
    in_bits = [p for i in range(0, len(text), size) for p in bits.feed(text[i : i + size])] + bits.end()
    assert joined(in_bits) == joined(at_once)


def test_reflective_words_are_whole_words_in_any_case():
    words = ReflectiveWords()
    assert words.count("Wait, let  me\ncheck. waiting HOWEVER") == 3
    assert words.count("awaits nothing") == 0
    assert ReflectiveWords(["aha!"]).count("Aha! aha") == 1
    assert ReflectiveWords([]).count("wait") == 0


def test_words_of_scripts_without_spaces_are_found_wherever_they_stand():
    words = ReflectiveWords()
    assert words.count("上车 A+5=11等等上车 A+5=12") == 1
    assert words.count("wait等一下 waiting") == 2
    assert words.spans("hmm, no") == [(0, 3)]
