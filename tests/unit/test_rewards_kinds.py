"""The other verifiers and rewards, each by itself."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ray.errors import ConfigError, DataError
from r1ray.rewards.accuracy import ExactVerifier, NumericVerifier, TaskVerifier
from r1ray.rewards.base import Sample
from r1ray.rewards.choice import ChoiceVerifier
from r1ray.rewards.form import Format
from r1ray.rewards.language import NAMES, Language, language_of
from r1ray.rewards.length import CosineLength, Length
from r1ray.rewards.repetition import Repetition

CITIES = ["Paris", "London", "Berlin", "Rome"]


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("B", 1.0),
        ("(B)", 1.0),
        ("b.", 1.0),
        ("\\boxed{B}", 1.0),
        ("\\boxed{\\text{B}}", 1.0),
        ("The answer is (B).", 1.0),
        ("Answer: **B**", 1.0),
        ("The answer is B) London", 1.0),
        ("The answer is London.", 1.0),
        ("<answer>london</answer>", 1.0),
        ("The correct option is B because it rains.", 1.0),
        ("option B", 1.0),
        ("A", 0.0),
        ("B) Paris", 0.0),
        ("Paris", 0.0),
        ("E", 0.0),
        ("A, B, C, D", 0.0),
        ("(A) Paris (B) London (C) Berlin (D) Rome", 0.0),
        ("B or C", 0.0),
        ("\\boxed{B} \\boxed{C}", 0.0),
        ("<think>B</think>", 0.0),
        ("Barcelona", 0.0),
        ("", 0.0),
    ],
)
def test_choice(response, value):
    verifier = ChoiceVerifier()
    assert verifier(Sample(response=response, answer="B", meta={"choices": CITIES})) == value
    assert verifier(Sample(response=response, answer={"answer": "London", "choices": CITIES})) == value


@pytest.mark.parametrize(
    ("response", "value"), [("B", 1.0), ("(B) London", 1.0), ("(A) Paris (B) London", 0.0), ("A, B", 0.0)]
)
def test_choice_without_the_options_at_hand(response, value):
    assert ChoiceVerifier()(Sample(response=response, answer="B")) == value


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("B 12", 1.0),
        ("B, 12", 1.0),
        ("(B) 12", 1.0),
        ("\\boxed{B - 12}", 1.0),
        ("The answer is B 12", 1.0),
        ("option B is right", 1.0),
        ("Choice (B) is the correct one.", 1.0),
        ("B is correct", 1.0),
        ("B 10", 0.0),
        ("A 12", 0.0),
        ("A 10, B 12", 0.0),
        ("A 10 B 12", 0.0),
        ("A, B", 0.0),
        ("option B is wrong", 0.0),
        ("option A is right, option B is right", 0.0),
        ("option C is right", 0.0),
    ],
)
def test_choice_by_letter_and_text_in_other_spellings(response, value):
    assert ChoiceVerifier()(Sample(response=response, answer="B", meta={"choices": ["10", "12"]})) == value


def test_a_whole_number_is_the_place_of_the_right_option():
    verifier = ChoiceVerifier()
    colours = {"answer": 2, "choices": ["red", "green", "blue", "x"]}
    assert verifier(Sample(response="blue", answer=colours)) == 1.0
    assert verifier(Sample(response="\\boxed{B}", answer=colours)) == 0.0
    numbers = {"choices": ["1", "2", "3", "4"]}
    assert verifier(Sample(response="\\boxed{C}", answer=2, meta=numbers)) == 1.0
    assert verifier(Sample(response="\\boxed{C}", answer="2", meta=numbers)) == 0.0  # the option's text
    assert verifier(Sample(response="A", answer=0)) == 1.0
    for wrong in (4, -1):
        with pytest.raises(DataError, match="no place among the 4 options"):
            verifier(Sample(response="A", answer=wrong, meta=numbers))


def test_choice_needs_a_truth_that_is_an_option():
    with pytest.raises(DataError, match="neither a letter nor an option"):
        ChoiceVerifier()(Sample(response="B", answer="Madrid", meta={"choices": CITIES}))


def test_exact():
    exact = ExactVerifier()
    assert exact(Sample(response="The answer is  Red  fox.", answer="red fox")) == 1.0
    assert exact(Sample(response="red foxes", answer="red fox")) == 0.0
    assert exact(Sample(response="vixen", answer=["red fox", "vixen"])) == 1.0
    assert ExactVerifier(ignore_case=False)(Sample(response="red", answer="Red")) == 0.0


def test_numeric():
    assert NumericVerifier()(Sample(response="the answer is 3.1416", answer=3.14159)) == 0.0
    assert NumericVerifier(absolute=0.001)(Sample(response="the answer is 3.1416", answer=3.14159)) == 1.0
    assert NumericVerifier(relative=0.01)(Sample(response="\\boxed{1,010}", answer="1000")) == 1.0
    assert NumericVerifier()(Sample(response="many", answer=3)) == 0.0
    with pytest.raises(DataError, match="no number"):
        NumericVerifier()(Sample(response="3", answer="many"))
    with pytest.raises(ConfigError, match="relative"):
        NumericVerifier(relative=-1.0)


@pytest.mark.parametrize(
    ("truth", "answer", "value"),
    [
        ("0.5", "0.5\\%", 0.0),
        ("0.5", "50\\%", 1.0),
        ("50%", "0.5", 1.0),
        ("50%", "49.9999999%", 1.0),
        ("1%", "100%", 0.0),
        ("5 km", "5 m", 0.0),
        ("5 km", "5", 1.0),
        ("5 km", "5.000001 km", 1.0),
        ("0.000001", "0", 0.0),
    ],
)
def test_numeric_reads_percent_and_units(truth, answer, value):
    assert NumericVerifier()(Sample(response=f"\\boxed{{{answer}}}", answer=truth)) == value


def test_the_checker_of_a_synthetic_task():
    meta = {"synthetic": "arithmetic", "params": {"digits": [2, 3]}}
    check = TaskVerifier()
    assert check(Sample(response="<think>hm</think> <answer> 1,234 </answer>", answer="1234", meta=meta)) == 1.0
    assert check(Sample(response="<think>hm</think> <answer> 1235 </answer>", answer="1234", meta=meta)) == 0.0
    assert check(Sample(response="<answer>1234</answer> <answer>1235</answer>", answer="1234", meta=meta)) == 0.0
    with pytest.raises(DataError, match="synthetic tasks only"):
        check(Sample(response="1234", answer="1234"))


# The same short chain of thought in each language.
THOUGHTS = {
    "en": "First we add the two numbers, and then we divide the sum by three. That means the answer must be right.",
    "de": "Zuerst addieren wir die beiden Zahlen, und dann teilen wir die Summe durch drei. Das ist also die Lösung.",
    "fr": "D'abord, nous additionnons les deux nombres, puis nous divisons la somme par trois. C'est donc la réponse.",
    "es": "Primero sumamos los dos números y luego dividimos la suma entre tres. Por lo tanto, esta es la respuesta.",
    "it": "Prima sommiamo i due numeri e poi dividiamo la somma per tre. Quindi questa è la risposta che abbiamo.",
    "pt": "Primeiro somamos os dois números e depois dividimos a soma por três. Então esta é a resposta que temos.",
    "nl": "Eerst tellen we de twee getallen op en dan delen we de som door drie. Dus dit is het antwoord dat we hebben.",
    "zh": "首先我们把两个数字相加，然后把和除以三。所以这就是正确的答案。",
    "ja": "まず二つの数を足して、それから合計を三で割ります。したがって、これが正しい答えです。",
    "ko": "먼저 두 수를 더한 다음 그 합을 삼으로 나눕니다. 그러므로 이것이 정답입니다.",
    "ru": "Сначала мы складываем два числа, а затем делим сумму на три. Значит, это и есть правильный ответ.",
    "ar": "أولا نجمع العددين ثم نقسم المجموع على ثلاثة. إذن هذا هو الجواب الصحيح.",
    "hi": "पहले हम दोनों संख्याओं को जोड़ते हैं और फिर योग को तीन से भाग देते हैं। इसलिए यही सही उत्तर है।",
    "el": "Πρώτα προσθέτουμε τους δύο αριθμούς και μετά διαιρούμε το άθροισμα με το τρία.",
    "he": "קודם נחבר את שני המספרים ואז נחלק את הסכום בשלוש.",
    "sv": "Först adderar vi de två talen och sedan delar vi summan med tre. Det betyder att det är svaret som vi vill ha.",
    "pl": "Najpierw dodajemy dwie liczby, a potem dzielimy sumę przez trzy. Więc to jest odpowiedź, której szukamy.",
    "tr": "Önce iki sayıyı topluyoruz ve sonra bu toplamı üçe bölüyoruz. Yani aradığımız cevap bu olur.",
    "id": "Pertama kita menambahkan kedua bilangan itu, lalu kita membagi jumlahnya dengan tiga. Jadi ini jawaban yang benar.",
    "vi": "Đầu tiên chúng ta cộng hai số với nhau, và sau đó chia tổng cho ba. Như vậy đây là câu trả lời của chúng ta.",
    "th": "ก่อนอื่นเราบวกตัวเลขสองตัว แล้วหารผลรวมด้วยสาม",
}


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("en", THOUGHTS["pl"]),
        ("en", THOUGHTS["id"]),
        ("en", THOUGHTS["vi"]),
        ("en", THOUGHTS["tr"]),
        ("ru", "Спочатку ми додаємо два числа, а потім ділимо суму на три. Отже, це і є правильна відповідь. Так."),
        ("ar", "ابتدا دو عدد را جمع می‌کنیم و سپس مجموع را بر سه تقسیم می‌کنیم. پس این پاسخ درست است."),
        ("en", "Saame esmalt kaks arvu kokku liita. Seejärel jagame summa kolmega. " * 6),  # a language without a list
    ],
)
def test_a_neighbour_of_the_target_is_not_the_target(target, text):
    assert Language(target=target)(thought(text)) < 0.35


def test_a_question_in_a_language_that_is_not_told_apart_names_no_target():
    assert language_of("Скільки всього яблук є в її кошику?") is None


def test_words_that_tell_nothing_are_the_targets_for_a_while():
    assert Language(target="en")(thought("Bus stop alpha. Passengers boarding.")) == 1.0


def thought(text, **fields):
    return Sample(response=f"<think>{text}</think> <answer>7</answer>", **fields)


@pytest.mark.parametrize("code", sorted(THOUGHTS))
def test_a_chain_of_thought_in_one_language(code):
    assert set(THOUGHTS) == set(NAMES.values())
    assert language_of(THOUGHTS[code]) == code
    for target in THOUGHTS:
        value = Language(target=target)(thought(THOUGHTS[code]))
        assert value > 0.9 if target == code else value < 0.15, (code, target)


def test_a_mixed_chain_of_thought_gets_its_share():
    mixed = f"{THOUGHTS['en']} {THOUGHTS['de']}"
    assert Language(target="en")(thought(mixed)) == pytest.approx(0.5, abs=0.1)
    assert Language(target="zh")(thought(f"{THOUGHTS['zh']} {THOUGHTS['en']}")) == pytest.approx(0.45, abs=0.15)
    assert 0.8 < Language(target="en")(thought(f"{THOUGHTS['en']} {THOUGHTS['en']} 所以答案")) < 0.97


def test_code_and_formulas_are_no_words():
    text = (
        THOUGHTS["zh"]
        + "\n```python\nfor number in the_list:\n    print(number)\n```\n`value and other`, $x \\text{ and } y$ \\(sum\\) x=y+1"
    )
    assert Language(target="zh")(thought(text)) == 1.0


def test_the_target_comes_from_the_config_the_row_or_the_question():
    german = thought(
        THOUGHTS["de"], meta={"target_language": "German"}, messages=({"role": "user", "content": "How are you?"},)
    )
    assert Language()(german) > 0.9
    assert Language(target="en")(german) < 0.1
    asked = thought(THOUGHTS["de"], messages=({"role": "user", "content": "Wie viele Äpfel sind es und warum?"},))
    assert Language()(asked) > 0.9
    with pytest.raises(DataError, match="target language"):
        Language()(thought("hm"))
    with pytest.raises(DataError, match="'klingon'"):
        Language()(thought("hm", meta={"target_language": "klingon"}))
    with pytest.raises(ConfigError, match="'klingon'"):
        Language(target="klingon")


def test_no_words_no_reward_and_the_answer_does_not_count():
    assert Language(target="en")(thought("3 + 4 = 7")) == 0.0
    assert Language(target="en")(Sample(response="<think>3</think> the answer is seven")) == 0.0


def test_soft_overlong_punishment():
    values = [
        Length(buffer_tokens=20)(Sample(response="", tokens=t, max_new_tokens=100)) for t in (0, 80, 90, 100, 120)
    ]
    assert values == [0.0, 0.0, -0.5, -1.0, -1.0]
    assert Length(buffer_tokens=20, max_tokens=50)(Sample(response="", tokens=40, max_new_tokens=100)) == -0.5
    with pytest.raises(DataError, match="number of tokens"):
        Length(buffer_tokens=20)(Sample(response=""))
    with pytest.raises(ConfigError, match="buffer_tokens"):
        Length(buffer_tokens=0)


def test_cosine_length():
    shaped = CosineLength(inner=ExactVerifier())

    def value(response, tokens):
        return shaped(Sample(response=response, answer="a", tokens=tokens, max_new_tokens=100))

    assert [value("a", t) for t in (0, 50)] == pytest.approx([2.0, 1.5])
    assert [value("b", t) for t in (0, 50)] == pytest.approx([-10.0, -5.0])
    assert value("a", 99) == pytest.approx(1.0, abs=0.01)
    assert value("b", 99) == pytest.approx(0.0, abs=0.01)
    assert value("a", 100) == value("b", 100) == -10.0


def test_repetition():
    assert Repetition()(Sample(response="each of these words is here just once, no more")) == 0.0
    assert Repetition()(Sample(response="wait, let me check. " * 200)) < -0.95
    assert Repetition(n=3)(Sample(response="我们再检查一遍。" * 50)) < -0.9
    assert Repetition(n=1)(Sample(response="a a b b")) == -0.5
    assert Repetition()(Sample(response="")) == 0.0


PURE = [
    Format(),
    Language(target="en"),
    Language(target="ja"),
    Repetition(),
    ChoiceVerifier(),
    ExactVerifier(),
    NumericVerifier(),
]
pieces = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "\\boxed{",
        "}",
        "```",
        "$",
        "\\(",
        "\\[",
        "\ud800",
        "\x00",
        "B",
        "(A)",
        "die",
        "的",
        "の",
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(pieces | st.text(max_size=10), max_size=15).map("".join))
def test_pure_rewards_judge_any_text(response):
    for pure in PURE:
        answer = "3" if isinstance(pure, NumericVerifier) else "B"
        assert -1.0 <= pure(Sample(response=response, answer=answer)) <= 1.0


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        " ",
        "\n",
        "{",
        "\\boxed{",
        "<think>",
        "$",
        "\\(",
        "\\[",
        "```",
        "```\n",
        "answer is ",
        "word ",
        "`a",
        "\\text{",
        "的",
        "(A) ",
        ", ",
        "<answer>",
    ],
)
def test_ten_megabytes_of_anything_take_no_time(unit):
    import time

    response = unit * (10_000_000 // len(unit))
    for pure in PURE:
        answer = "3" if isinstance(pure, NumericVerifier) else "B"
        began = time.thread_time()  # what else runs on this machine does not count
        pure(Sample(response=response, answer=answer))
        assert time.thread_time() - began < 1.0, (type(pure).__name__, unit)
