"""Templates, framing and the tokenizer."""

from __future__ import annotations

import pytest
from jinja2 import TemplateError

from r1ray.config.schema import DataConfig
from r1ray.data.framing import Framer
from r1ray.data.rows import Row
from r1ray.data.templates import R1_ZERO_FRAME, as_messages, render
from r1ray.errors import ConfigError, DataError
from tests.unit.data_helpers import OPENINGS, ByteTokenizer

CHAT = ({"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "+1?"})


@pytest.mark.parametrize(
    ("template", "prompt", "system", "expected"),
    [
        ("plain", "1+1", None, "User: 1+1\nAssistant:"),
        ("plain", "1+1", "Be kind.", "Be kind.\nUser: 1+1\nAssistant:"),
        ("plain", CHAT, None, "User: 1+1\nAssistant: 2\nUser: +1?\nAssistant:"),
        ("none", "1+1", None, "1+1"),
        ("tokenizer", "1+1", None, "<user>1+1<assistant>"),
        ("tokenizer", "1+1", "Be kind.", "<system>Be kind.<user>1+1<assistant>"),
        ("r1", "1+1", None, "<user>1+1<assistant><think>\n"),
        ("r1_zero", "Add 1 to 1", None, f"{R1_ZERO_FRAME} User: Add 1 to 1. Assistant:"),
        ("r1_zero", "What is 1+1?", None, f"{R1_ZERO_FRAME} User: What is 1+1? Assistant:"),
        ("r1_zero", "Add 1 to 1", "A frame of mine.", "A frame of mine. User: Add 1 to 1. Assistant:"),
    ],
)
def test_the_text_that_is_continued(
    template: str, prompt: str | tuple[dict[str, str], ...], system: str | None, expected: str
) -> None:
    assert render(template, prompt, ByteTokenizer(), system) == expected


@pytest.mark.parametrize("chat_template", OPENINGS)
def test_a_chat_template_that_opens_the_thinking_is_not_doubled(chat_template: str) -> None:
    assert render("r1", "1+1", ByteTokenizer(chat_template)) == "<user>1+1<assistant><think>\n"


def test_the_frame_names_the_tags_that_the_format_reward_looks_for() -> None:
    assert all(tag in R1_ZERO_FRAME for tag in ("<think>", "</think>", "<answer>", "</answer>"))


def test_a_chat_keeps_its_own_system_message() -> None:
    own = ({"role": "system", "content": "Mine."}, *CHAT)
    assert as_messages(own, "Another.") == own
    assert as_messages(CHAT, "Another.")[0] == {"role": "system", "content": "Another."}


@pytest.mark.parametrize("template", ["tokenizer", "r1"])
def test_a_base_model_without_chat_template_is_told_what_to_use(template: str) -> None:
    with pytest.raises(ConfigError, match="r1_zero or plain"):
        Framer(DataConfig(template=template), ByteTokenizer(chat_template=None))


def test_no_template_takes_no_system_prompt() -> None:
    with pytest.raises(ConfigError, match=r"data\.template = none: expected one message, got 2"):
        Framer(DataConfig(template="none", system_prompt="Be kind."), ByteTokenizer())


def test_an_unknown_template_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected one of r1_zero.*got 'chatml'"):
        render("chatml", "1+1", ByteTokenizer())


def test_what_a_chat_template_refuses_is_the_fault_of_the_row() -> None:
    class Strict(ByteTokenizer):
        def apply_chat_template(self, *args: object, **kwargs: object) -> str:
            raise TemplateError("roles must alternate")

    with pytest.raises(DataError, match="refuses a chat of user: roles must alternate"):
        render("tokenizer", "1+1", Strict())


def test_only_text_without_special_tokens_gets_them_from_the_tokenizer() -> None:
    row = Row(row_id="0", messages=as_messages("1+1"), answer="2")
    plain = Framer(DataConfig(template="plain"), ByteTokenizer()).frame(row)
    chat = Framer(DataConfig(template="tokenizer"), ByteTokenizer()).frame(row)
    assert plain is not None
    assert chat is not None
    assert plain.token_ids[0] == 256
    assert chat.token_ids[0] == ord("<")
    assert plain.token_ids.dtype == "int32"


@pytest.mark.parametrize(
    ("template", "chat_template", "opening"),
    [
        ("r1", "bytes", "<think>\n"),
        *(("r1", t, "<think>\n") for t in OPENINGS),
        *(("tokenizer", *o) for o in OPENINGS.items()),
    ],
)
def test_rewards_learn_what_the_prompt_has_opened(template: str, chat_template: str, opening: str) -> None:
    row = Row(row_id="0", messages=as_messages("1+1"), answer="2", meta={"domain": "maths"})
    framed = Framer(DataConfig(template=template), ByteTokenizer(chat_template)).frame(row)
    assert framed is not None
    assert framed.row.meta == {"domain": "maths", "opening": opening}


@pytest.mark.parametrize("length", [20, 29, 30, 31, 200])
def test_fits_says_what_frame_does(length: int) -> None:
    framer = Framer(DataConfig(template="none", max_prompt_tokens=30), ByteTokenizer())
    row = Row(row_id="0", messages=as_messages("x" * length), answer="2")
    assert framer.fits(row) == (framer.frame(row) is not None) == (length + 1 <= 30)
