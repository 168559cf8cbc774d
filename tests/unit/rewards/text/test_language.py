"""Language consistency: which words count for the target, and which do not."""

import subprocess
import sys
from pathlib import Path

import pytest

from r1ray.errors import ConfigError, DataError
from r1ray.rewards.base import Sample
from r1ray.rewards.text.language import Language, count_words, language_of
from r1ray.util.languages import LANGUAGES

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
    "bn": "প্রথমে আমরা দুটি সংখ্যা যোগ করি এবং তারপর যোগফলকে তিন দিয়ে ভাগ করি। সুতরাং এটাই সঠিক উত্তর।",
    "pa": "ਪਹਿਲਾਂ ਅਸੀਂ ਦੋ ਸੰਖਿਆਵਾਂ ਨੂੰ ਜੋੜਦੇ ਹਾਂ ਅਤੇ ਫਿਰ ਜੋੜ ਨੂੰ ਤਿੰਨ ਨਾਲ ਵੰਡਦੇ ਹਾਂ।",
    "gu": "પહેલા આપણે બે સંખ્યાઓ ઉમેરીએ છીએ અને પછી સરવાળાને ત્રણ વડે ભાગીએ છીએ.",
    "ta": "முதலில் இரண்டு எண்களைக் கூட்டி, பின்னர் கூட்டுத்தொகையை மூன்றால் வகுக்கிறோம்.",
    "te": "మొదట మనం రెండు సంఖ్యలను కలిపి, తరువాత మొత్తాన్ని మూడుతో భాగిస్తాము.",
    "kn": "ಮೊದಲು ನಾವು ಎರಡು ಸಂಖ್ಯೆಗಳನ್ನು ಕೂಡಿಸಿ, ನಂತರ ಮೊತ್ತವನ್ನು ಮೂರರಿಂದ ಭಾಗಿಸುತ್ತೇವೆ.",
}

TABLE = [
    tuple(line.split("\t"))
    for line in (Path(__file__).parent / "sentences.tsv").read_text(encoding="utf-8").splitlines()
]
"""(code, sentence): 27 sentences of 3 to 37 words in each of the twelve languages in the Latin script."""


def test_the_table_of_sentences():
    """98 % and more are recognised without a target, and all of them if their language is the target."""
    assert len(set(TABLE)) == 324
    codes = sorted({code for code, _ in TABLE})
    wrong = [(code, found, text) for code, text in TABLE if (found := language_of(text)) != code]
    assert len(wrong) <= 0.02 * len(TABLE), wrong
    assert [text for code, text in TABLE if Language(target=code)(thought(text)) < 0.9] == []
    paid = [(t, text) for code, text in TABLE for t in codes if t != code and Language(target=t)(thought(text)) > 0.35]
    assert len(paid) <= 0.01 * len(TABLE) * (len(codes) - 1), paid


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("Here cos 2x is at most 1, and log y, max(a, b) and tanh t are positive.", "en"),
        ("所以 cos A 小于 lim f，mod(p, q) 是整数。", "zh"),
        ("Por lo tanto, sin a y log b son iguales, sin embargo no sabemos más.", "es"),
        ("log p - exp q", "de"),
    ],
)
def test_names_of_functions_are_in_no_language(text, target):
    assert Language(target=target)(thought(text)) > 0.95
    assert count_words("log p - exp q", None) == {}


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("Chloé and Günther divide the eggs that Añez sold.", "en"),
        ("Sören owes Françoise die price of it.", "en"),
        ("Weil Łukasz mehr als Zoë hat, teilt er mit François.", "de"),
        ("Muñoz et Jürgen partagent les pommes de Ångström.", "fr"),
    ],
)
def test_personal_names_are_in_no_language(text, target):
    assert Language(target=target)(thought(text)) > 0.9


def test_words_of_another_language_within_a_sentence_count_for_it():
    assert count_words("We add the two numbers und dann auch noch the third one.", "en")["de"] == 4


@pytest.mark.parametrize(
    "text",
    [
        "Vi skal først lægge de to tal sammen og derefter dividere summen med tre.",
        "Ensin laskemme luvut yhteen ja sitten jaamme summan kolmella.",
        "Nejprve sečteme obě čísla a potom vydělíme součet třemi.",
    ],
)
def test_a_language_without_a_list_is_not_taken_for_its_neighbour(text):
    assert language_of(text) is None
    assert all(Language(target=code)(thought(text)) < 0.35 for code in ("en", "sv", "pl", "tr", "de"))


def test_a_text_with_clear_function_words_needs_no_models():
    code = (
        "import sys; from r1ray.rewards.text.language import count_words; "
        "count_words('4 on B+3=7 on C+1=8 on', 'en'); "  # a response of the tiny model
        "print(count_words('We know that it is the first of all the numbers.', 'en'), 'lingua' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["{'en':", "11.0}", "False"]


@pytest.mark.parametrize("text", ["ab cd. ", "zug weiter bald. ", "a", "Ok! "])
def test_the_time_is_linear_in_any_text(text):
    count_words((text * (1 << 17))[: 1 << 17], "en")  # the test's own timeout is the bound


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


def test_a_question_in_an_unknown_language_names_no_target():
    assert language_of("Скільки всього яблук є в її кошику?") is None


def test_words_that_tell_nothing_are_the_targets_for_a_while():
    assert Language(target="en")(thought("Bus stop alpha. Passengers boarding.")) == 1.0


def thought(text, **fields):
    return Sample(response=f"<think>{text}</think> <answer>7</answer>", **fields)


@pytest.mark.parametrize("code", sorted(THOUGHTS))
def test_a_chain_of_thought_in_one_language(code):
    assert set(THOUGHTS) == set(LANGUAGES.values())
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
