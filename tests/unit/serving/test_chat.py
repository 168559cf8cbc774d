"""The chat loop with a scripted engine: what the model hears, what is shown, how a response is stopped."""

import io
import os
import signal
from collections.abc import Iterator

import pytest
from rich.console import Console

from r1ray.errors import ConfigError
from r1ray.serving.chat import Chat, converse, interruptible
from r1ray.types import Sampling


class WordTokenizer:
    """A token a word; a chat template of the plainest kind where `chat` is set."""

    eos_token_id = 0

    def __init__(self, *, chat: bool, opening: str = "") -> None:
        self.chat_template = "yes" if chat else None
        self._opening = opening

    def encode(self, text, *, add_special_tokens=True):
        return list(range(len(text.split()) + add_special_tokens))

    def decode(self, token_ids, *, skip_special_tokens=False):
        raise AssertionError("the engine gives text")

    def apply_chat_template(self, conversation, *, tokenize, add_generation_prompt):
        return " ".join(f"[{m['role']}] {m['content']}" for m in conversation) + " [assistant]" + self._opening


class ScriptedEngine:
    def __init__(self, tokenizer, *responses, max_length=100) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.asked: list[tuple[int, int, tuple]] = []
        self.closed = 0
        self._responses = list(responses)

    def stream(self, token_ids, sampling, stop):
        self.asked.append((len(token_ids), sampling.max_new_tokens, tuple(stop)))
        try:
            yield from self._responses.pop(0)
        finally:
            self.closed += 1


def make(engine, **settings):
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="standard", highlight=False)
    return Chat(engine, console, Sampling(temperature=0.6, max_new_tokens=50), **settings), console


def test_thinking_is_dim_and_tags_are_not_shown():
    engine = ScriptedEngine(WordTokenizer(chat=False), ["<thi", "nk>7+5", "</think><ans", "wer>12</answer>"])
    chat, console = make(engine)
    chat.turn("bus 7 A+5")
    assert console.file.getvalue() == "\x1b[2m7+5\x1b[0m12\n"


def test_a_model_cannot_send_commands_to_the_terminal():
    chat, console = make(ScriptedEngine(WordTokenizer(chat=False), ["a\x1b[2Jb"]))
    chat.turn("x")
    assert console.file.getvalue() == "a␛[2Jb\n"


def test_thinking_that_the_template_opens_is_dim_from_the_first_word():
    engine = ScriptedEngine(WordTokenizer(chat=True, opening="<think>\n"), ["hm", "</think>yes"])
    chat, console = make(engine)
    chat.turn("so?")
    assert console.file.getvalue() == "\x1b[2mhm\x1b[0myes\n"


def test_a_model_without_a_chat_format_hears_each_line_alone_and_stops_at_the_next_turn():
    engine = ScriptedEngine(WordTokenizer(chat=False), ["1"], ["2"])
    chat, _ = make(engine)
    chat.turn("a b")
    chat.turn("a b")
    assert engine.asked == [(5, 50, ("User:",))] * 2  # "User: a b Assistant:" and a beginning-of-text token


def test_a_chat_model_hears_the_conversation_without_the_thinking():
    engine = ScriptedEngine(WordTokenizer(chat=True), ["<think>one two three</think>four"], ["x"])
    chat, _ = make(engine)
    chat.turn("a")
    chat.turn("b")
    assert engine.asked == [(3, 50, ()), (7, 50, ())]  # [user] a [assistant] four [user] b [assistant]


def test_the_oldest_turns_are_left_out_where_the_conversation_gets_too_long():
    engine = ScriptedEngine(WordTokenizer(chat=True), ["one"], ["two"], ["three"], max_length=8)
    chat, console = make(engine)
    for line in ("a", "b", "c"):
        chat.turn(line)
    assert [asked[:2] for asked in engine.asked] == [(3, 5), (7, 1), (7, 1)]
    chat.turn(" ".join("abcdefgh"))
    assert "The prompt has 10 tokens; expected fewer than 8" in console.file.getvalue()
    assert len(engine.asked) == 3


def test_an_unknown_template_is_refused_before_the_first_line():
    with pytest.raises(ConfigError, match="fancy"):
        make(ScriptedEngine(WordTokenizer(chat=False)), template="fancy")


def test_interrupting_ends_the_response_and_not_the_program():
    def response():
        yield "first "
        os.kill(os.getpid(), signal.SIGINT)
        yield "second "
        raise AssertionError("went on after the interrupt")

    engine = ScriptedEngine(WordTokenizer(chat=False), response(), ["whole"])
    chat, console = make(engine)
    lines = iter(["a", "", "b"])

    def read_line():
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    before = signal.getsignal(signal.SIGINT)
    converse(chat, console, read_line)
    assert console.file.getvalue() == "first second \nwhole\n\n"
    assert engine.closed == 2
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupting_the_prompt_begins_it_anew():
    calls = iter([KeyboardInterrupt, EOFError])

    def read_line():
        raise next(calls)

    chat, console = make(ScriptedEngine(WordTokenizer(chat=False)))
    converse(chat, console, read_line)
    assert console.file.getvalue() == "\n\n"


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Python's own handling of SIGINT, also where the tests were started with it ignored,
    as in the background of a shell.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_interrupt_is_as_ever(interrupts: None):
    with interruptible() as stopped:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
