"""Conversations as training examples: what is learned, what is held out, what is left out, what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from learner.examples import HELD_OUT, SupervisedData, total_steps
from learner.sft.data import Example, Framing, read_data
from r1ray.config.schema import Config, SourceConfig
from r1ray.data.conversations import Conversation
from r1ray.errors import ConfigError, DataError
from tests.unit.data_helpers import ByteTokenizer, write_jsonl

EOS = 257


def rows(n: int, **more: Any) -> list[dict[str, Any]]:
    return [{"id": f"r{i}", "prompt": f"question {i}", "response": f"answer {i}", **more} for i in range(n)]


def configured(*sources: SourceConfig, template: str = "plain", held_out: float = 0.0) -> Config:
    config = Config()
    config.data.train, config.data.template = list(sources), template
    config.model.max_length, config.sft.held_out = 200, held_out
    return config


def source(folder: Path, content: list[dict[str, Any]], name: str = "chats", **changes: Any) -> SourceConfig:
    path = write_jsonl(folder / f"{name}.jsonl", content)
    return SourceConfig(name=name, kind="jsonl", path=path, **changes)


def text(tokens: Any) -> str:
    return ByteTokenizer().decode(tokens.tolist())


def prompts(data: SupervisedData[Example], part: str = "train") -> set[str]:
    examples = data.train if part == "train" else data.held_out[part]
    return {text(examples[i].prompt) for i in range(len(examples))}


# -- what is learned ------------------------------------------------------------------------------------------------


def test_only_the_last_response_and_the_end_of_text_are_learned(tmp_path: Path) -> None:
    chat = [("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four")]
    row = {"messages": [{"role": role, "content": content} for role, content in chat]}
    example = read_data(configured(source(tmp_path, [row])), ByteTokenizer()).train[0]
    assert text(example.prompt) == "User: one\nAssistant: two\nUser: three\nAssistant:"
    assert example.completion.tolist() == [*b"four", EOS]
    assert example.prompt.dtype == example.completion.dtype == "int32"


def test_templates_that_hold_special_tokens_get_none_from_the_tokenizer() -> None:
    asked = Conversation(row_id="0", prompt=({"role": "user", "content": "q"},), response="a")
    plain = Framing(configured(), ByteTokenizer()).example(asked)
    chat = Framing(configured(template="tokenizer"), ByteTokenizer()).example(asked)
    assert plain.prompt.tolist() == [256, *b"User: q\nAssistant:"]
    assert chat.prompt.tolist() == [*b"<user>q<assistant>"]
    assert plain.completion.tolist() == chat.completion.tolist() == [*b"a", EOS]


@pytest.mark.parametrize("response", ["<think>\nso\n</think>\n7", "\n<think>\nso\n</think>\n7", "so\n</think>\n7"])
@pytest.mark.parametrize("tokenizer", ["bytes", "thinking"])
def test_thinking_that_the_prompt_opens_is_not_opened_again(response: str, tokenizer: str) -> None:
    asked = Conversation(row_id="0", prompt=({"role": "user", "content": "q"},), response=response)
    example = Framing(configured(template="r1"), ByteTokenizer(tokenizer)).example(asked)
    assert text(example.prompt) + text(example.completion) == "<user>q<assistant><think>\nso\n</think>\n7"


@pytest.mark.parametrize(("chat_template", "between"), [("thinking", ""), ("tag", "\n"), ("spaced", "")])
def test_so_it_is_where_the_chat_template_opens_it_in_its_own_way(chat_template: str, between: str) -> None:
    framing = Framing(configured(template="tokenizer"), ByteTokenizer(chat_template))
    learned = {
        "<think>so</think>7": "so</think>7",
        "<think>\nso</think>7": between + "so</think>7",
        "</think>7": "</think>7",
    }
    for response, expected in learned.items():
        row = Conversation(row_id="0", prompt=({"role": "user", "content": "q"},), response=response)
        assert text(framing.example(row).completion) == expected
    with pytest.raises(DataError, match=r"the prompt opens <think> \(data\.template = tokenizer\)"):
        framing.fits(dataclasses.replace(row, response="7"))


def test_an_answer_without_thinking_is_refused_where_the_prompt_opens_it(tmp_path: Path) -> None:
    closed = {"prompt": "q", "response": "<think>\n\n</think>\n\nHello!"}
    config = configured(source(tmp_path, [closed, {"prompt": "q", "response": "Hello!"}]), template="r1")
    with pytest.raises(ConfigError, match=r"chats\.jsonl:2: the prompt opens <think> .*no </think>.*empty_thinking"):
        read_data(config, ByteTokenizer())
    config.data.train = [source(tmp_path, [closed])]
    example = read_data(config, ByteTokenizer()).train[0]
    assert text(example.prompt) + text(example.completion) == "<user>q<assistant><think>\n\n</think>\n\nHello!"


def test_a_prompt_without_a_token_is_refused() -> None:
    class Deaf(ByteTokenizer):
        def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
            return list(text.strip().encode())

    asked = Conversation(row_id="0", prompt=({"role": "user", "content": "\n"},), response="a")
    with pytest.raises(DataError, match="the prompt has no token"):
        Framing(configured(template="none"), Deaf()).example(asked)


# -- held out, left out ---------------------------------------------------------------------------------------------


def test_what_is_held_out_does_not_depend_on_the_order_and_keeps_a_question_on_one_side(tmp_path: Path) -> None:
    content = [*rows(200), *(row | {"response": "another"} for row in rows(200))]
    first = read_data(configured(source(tmp_path, content, "a"), held_out=0.2), ByteTokenizer())
    again = read_data(configured(source(tmp_path, content[::-1], "b"), held_out=0.2), ByteTokenizer())
    assert prompts(first, HELD_OUT) == prompts(again, HELD_OUT)
    assert not prompts(first) & prompts(first, HELD_OUT)
    assert len(first.train) + len(first.held_out[HELD_OUT]) == 400
    assert 50 < len(first.held_out[HELD_OUT]) < 110


def test_evaluation_sources_take_the_place_of_the_share(tmp_path: Path) -> None:
    config = configured(source(tmp_path, rows(50), "train"), held_out=0.5)
    config.data.evaluation = [source(tmp_path, rows(3), "exam")]
    data = read_data(config, ByteTokenizer())
    assert (len(data.train), {name: len(e) for name, e in data.held_out.items()}) == (50, {"exam": 3})


def test_too_long_conversations_are_left_out_and_counted(tmp_path: Path) -> None:
    config = configured(source(tmp_path, [*rows(3), *rows(2, response="x" * 300)]))
    config.data.evaluation = [source(tmp_path, rows(4, response="y" * 300) + rows(1), "exam")]
    data = read_data(config, ByteTokenizer())
    assert (len(data.train), len(data.held_out["exam"]), data.left_out) == (3, 1, {"too_long": 6})


def test_the_limit_in_tokens_is_exact(tmp_path: Path) -> None:
    frame = len("User: q\nAssistant:") + 2  # and the tokens that begin and end the text
    fits, not_quite = ({"prompt": "q", "response": "x" * (200 - frame + more)} for more in (0, 1))
    data = read_data(configured(source(tmp_path, [fits, not_quite])), ByteTokenizer())
    assert (len(data.train), data.train[0].tokens, data.left_out) == (1, 200, {"too_long": 1})


# -- once, and the same ---------------------------------------------------------------------------------------------


class CountingTokenizer(ByteTokenizer):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        self.calls += 1
        return super().encode(text, add_special_tokens=add_special_tokens)


@pytest.mark.parametrize(("epochs", "kept"), [(2, True), (1, False)])
def test_what_is_used_again_is_tokenised_once(tmp_path: Path, epochs: int, kept: bool) -> None:
    config, tokenizer = configured(source(tmp_path, rows(5))), CountingTokenizer()
    config.sft.epochs = epochs
    train = read_data(config, tokenizer).train
    before = tokenizer.calls
    for _ in range(3):
        assert [text(train[i].completion) for i in range(5)] == [f"answer {i}" for i in range(5)]
    assert tokenizer.calls - before == (10 if kept else 30)  # a prompt and a response each


def test_the_digest_tells_other_data_from_the_same(tmp_path: Path) -> None:
    def digest(content: list[dict[str, Any]], held_out: float = 0.0) -> str:
        return read_data(configured(source(tmp_path, content), held_out=held_out), ByteTokenizer()).digest

    content = rows(20)
    same = digest(content)
    assert digest(content) == same
    changed = [content[:-1], content[::-1], [*content[:-1], content[-1] | {"response": "answer 2"}]]
    assert len({same, digest(content, 0.4), *map(digest, changed)}) == 5


# -- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([*rows(2), {"prompt": "q"}], r"chats.jsonl:3: a row needs a response"),
        ([{"messages": [{"role": "user", "content": "q"}]}], r"chats.jsonl:1: .*end with the assistant's"),
        ([{"prompt": "q", "response": "x" * 500}], "leaves no conversation to train on: 1 too_long"),
        ([], "has no row"),
    ],
)
def test_bad_data_is_refused_with_its_place(tmp_path: Path, content: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_data(configured(source(tmp_path, content)), ByteTokenizer())


def test_an_evaluation_source_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    config = configured(source(tmp_path, rows(2)))
    config.data.evaluation = [source(tmp_path, rows(2, response="x" * 500), "exam")]
    with pytest.raises(ConfigError, match="the evaluation source exam has no conversation"):
        read_data(config, ByteTokenizer())


def test_a_tokenizer_without_an_end_or_a_chat_template_is_refused(tmp_path: Path) -> None:
    endless = ByteTokenizer()
    endless.eos_token_id = None
    with pytest.raises(ConfigError, match="no end-of-text token to learn"):
        read_data(configured(source(tmp_path, rows(1))), endless)
    with pytest.raises(ConfigError, match="has no chat template"):
        read_data(configured(source(tmp_path, rows(1)), template="tokenizer"), ByteTokenizer(None))


def test_steps_are_counted_and_a_warm_up_must_fit_into_them() -> None:
    config = configured()
    config.sft = dataclasses.replace(config.sft, epochs=3, batch_size=4)
    config.learner.optimizer.warmup_steps = 9
    assert [total_steps(config, "sft", n) for n in (9, 12)] == [9, 9]
    with pytest.raises(ConfigError, match="warmup_steps=9 is more than the run's 6 steps"):
        total_steps(config, "sft", 8)


# -- other files ----------------------------------------------------------------------------------------------------


def test_parquet_and_data_sets_on_disk_give_the_same_examples(tmp_path: Path) -> None:
    import datasets
    import pyarrow
    from pyarrow import parquet

    content = [{"q": row["prompt"], "response": row["response"]} for row in rows(6)]
    columns = {"prompt": "q"}
    parquet.write_table(pyarrow.Table.from_pylist(content), tmp_path / "chats.parquet")
    datasets.Dataset.from_list(content).save_to_disk(str(tmp_path / "hf"))
    made = [
        source(tmp_path, content, columns=columns),
        SourceConfig(name="p", kind="parquet", path=str(tmp_path / "chats.parquet"), columns=columns),
        SourceConfig(name="h", kind="hf", path=str(tmp_path / "hf"), columns=columns),
    ]
    digests = {read_data(configured(one), ByteTokenizer()).digest for one in made}
    assert len(digests) == 1
    together = read_data(configured(*(dataclasses.replace(one, limit=4) for one in made)), ByteTokenizer())
    assert len(together.train) == 12
    assert [text(together.train[i].completion) for i in (0, 4, 8)] == ["answer 0"] * 3
