"""What counts as the answer of a response, and as its form."""

import pytest

from r1ray.errors import ConfigError
from r1ray.rewards.answers.answer import MAX_ANSWERS, answer_part, answers, boxed, chain_of_thought
from r1ray.rewards.base import Sample
from r1ray.rewards.text.format import Format

T = "<think>so 3 + 4 = 7</think>"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (f"{T} <answer> 7 </answer>", ["7"]),
        (f"{T} <answer>The answer is 7.</answer>", ["7"]),
        (f"{T} <answer>It is \\boxed{{7}} people</answer>", ["7"]),
        (f"{T} so \\boxed{{\\frac{{1}}{{2}}}}.", ["\\frac{1}{2}"]),
        (f"{T} \\boxed{{ {{a}} }}", ["{a}"]),
        (f"{T} \\boxed{{1}} and \\boxed{{2}}", ["1", "2"]),
        (f"{T} \\fbox{{7}}", ["7"]),
        # of several boxes the last counts, with those that its sentence joins to it
        ("Half of it is \\boxed{9}, so all of it is \\boxed{18}.", ["18"]),
        ("\\boxed{9}\n\n\\boxed{18}", ["18"]),
        ("\\boxed{9}. \\boxed{18}", ["18"]),
        ("First \\boxed{2}. Then $x=\\boxed{3}$ or $x=\\boxed{-3}$.", ["3", "-3"]),
        ("\\(\\boxed{3}\\), \\(\\boxed{5}\\) and \\(\\boxed{8}\\)", ["3", "5", "8"]),
        ("\\boxed{3} (twice) and \\boxed{5}", ["3", "5"]),
        ("\\boxed{3} is prime and \\boxed{4} is not", ["4"]),
        (f"{T} \\boxed{{\\boxed{{7}}}}", ["7"]),
        ("Adding up, the final answer is 7.", ["7"]),
        ("The answer is: **7**", ["7"]),
        ("Answer: 7", ["7"]),
        ("The answer is 6. No, the answer is 7.", ["7"]),
        ("the answer is 6\nso the answer is 7", ["7"]),
        ("The answer is 7 because 3 + 4 = 7.", ["7"]),
        ("The answer is 7. I hope that helps.", ["7"]),
        ("The answer is 3.5", ["3.5"]),
        ("The correct option is (B)", ["(B)"]),
        ("3+4=7\n#### 1,007", ["1,007"]),
        (f"{T} 7", ["7"]),
        ("7", ["7"]),
        ("3+4=7\n**Answer:**\n18", ["18"]),
        ("**Answer**: 18", ["18"]),
        ("so\n\n**Answer**\n\n**18**", ["18"]),
        ("### The final answer\n\n\\(18\\)", ["\\(18\\)"]),
        ("**最终答案**\n18", ["18"]),
        ("Final answer\n18 m", ["18 m"]),
        ("The answer to this question must be 18.", ["18"]),
        ("The answer would be therefore, 18.", ["18"]),
        ("The answer equals 18", ["18"]),
        ("The answer, therefore, is 18.", ["18"]),
        ("so\nAnswer\n18", ["18"]),
        ("Final Answer: The least of them is $18$.", ["$18$"]),
        ("Answer: The sky is blue", ["The sky is blue"]),
        ("故选：C。", ["C"]),
        ("因此应选择（C）。", ["（C）"]),
        ("本题选 C", ["C"]),
        ("The answer to it\nis in the book", []),
        ("Answer:\n\n  18 \nI hope that helps", ["18"]),
        ("The answer is approximately 3.14", ["3.14"]),
        ("The answer is about \\(3.14\\).", ["\\(3.14\\)"]),
        ("所以答案是 18", ["18"]),
        ("答案是：18。因为 9+9=18。", ["18"]),
        ("答案为约 18", ["18"]),
        ("Also gilt:\nAntwort: 18", ["18"]),
        ("Die richtige Antwort ist 18.", ["18"]),
        ("Antwort: 18. Übrigens stimmt das.", ["18"]),
        ("La réponse est 18.", ["18"]),
        ("La respuesta correcta es 18", ["18"]),
        ("**Respuesta:** 18", ["18"]),
        ("答えは18です。", ["18"]),
        ("답: 18", ["18"]),
        ("정답은 18입니다.", ["18"]),
        ("Правильный ответ: 18", ["18"]),
        ("Ответ — 18.", ["18"]),
        ("الإجابة: 18", ["18"]),
        ("الإجابة الصحيحة هي 18", ["18"]),
        ("उत्तर: 18", ["18"]),
        # an answer in tags and a box beside it
        ("<answer>4</answer> \\boxed{5}", ["4", "5"]),
        ("\\boxed{5} <answer>4</answer>", ["4", "5"]),
        ("<answer>\\boxed{4}</answer> \\boxed{4.0}", ["4", "4.0"]),
        # none
        ("<think>the answer is 7, \\boxed{7}</think>", []),
        ("<think>the answer is 7, \\boxed{7}", []),
        ("<answer>7</answer> <think>hm</think>", []),
        (f"{T} we add them\nand get 7 people", []),
        (f"{T} \\boxed{{7", []),
        (f"{T} <answer></answer>", []),
        ("", []),
        ("\x00", ["\x00"]),
        (f"{T} " + "\\boxed{7} " * (MAX_ANSWERS + 1), []),
        (f"{T} \\boxed{{{'7' * 5000}}}", []),
    ],
)
def test_answers(response, expected):
    assert answers(response) == expected


def test_a_response_that_was_cut_off_answers_only_between_delimiters():
    assert answers("the answer is 12", complete=False) == []
    assert answers("so \\boxed{12} and", complete=False) == ["12"]


def test_thinking_that_the_prompt_opened():
    assert answers("hm 7, \\boxed{7}", opened=True) == []
    assert answers("hm 8</think> \\boxed{7}", opened=True) == ["7"]
    assert chain_of_thought("hm 8</think> 7", opened=True) == "hm 8"
    assert chain_of_thought("<think>hm</think> 7") == "hm"
    assert chain_of_thought("no tags at all") == "no tags at all"
    assert answer_part("a</think>b</think>c<think>d") == "c"


def test_a_million_braces_are_read_in_no_time():
    assert boxed("{" * 1_000_000) == []
    assert answers("\\boxed{" * 1_000_000 + "7}") == ["7"]
    assert answers("}" * 1_000_000 + "\\boxed{7}") == ["7"]


GOOD = "<think>hm</think> <answer>7</answer>"


@pytest.mark.parametrize(
    ("response", "value"),
    [
        (GOOD, 1.0),
        (f"\n {GOOD} \n", 1.0),
        ("<think>a\nb</think>\n\n<answer>7</answer>", 1.0),
        ("<think>hm</think>7", 0.0),
        ("<think>hm</think><answer>7", 0.0),
        ("<think>hm<answer>7</answer>", 0.0),
        (f"well {GOOD}", 0.0),
        (f"{GOOD} bye", 0.0),
        (f"{GOOD} <answer>8</answer>", 0.0),
        (f"<think>{GOOD}</think>", 0.0),
        ("<think>hm</think> so <answer>7</answer>", 0.0),
        ("<answer>7</answer><think>hm</think>", 0.0),
        ("<think> </think><answer>7</answer>", 0.0),
        ("<think>hm</think><answer> </answer>", 0.0),
        ("<think>hm</think><answer><think></answer>", 0.0),
        ("", 0.0),
    ],
)
def test_the_form_of_r1_zero(response, value):
    assert Format()(Sample(response=response)) == value


def test_other_forms():
    think = Format(style="think")
    assert think(Sample(response="<think>hm</think> It is 7.")) == 1.0
    assert think(Sample(response="<think>hm</think> ")) == 0.0
    assert think(Sample(response="It is 7.")) == 0.0
    begun = {"opening": "<think>\n"}
    assert Format()(Sample(response="hm</think> <answer>7</answer>", meta=begun)) == 1.0
    assert Format()(Sample(response=GOOD, meta=begun)) == 0.0
    assert Format(tags=("plan", "final"))(Sample(response="<plan>a</plan><final>b</final>")) == 1.0
    with pytest.raises(ConfigError, match="two different names"):
        Format(tags=("think", "think"))
