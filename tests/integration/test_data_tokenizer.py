"""Tokenizers as transformers loads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r1ray.data.templates import render
from r1ray.data.tokenizer import load_tokenizer
from r1ray.data.vocab import vocab_hash
from r1ray.errors import ConfigError, DataError, IntegrityError

pytestmark = pytest.mark.integration

ALTERNATING = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[END]", "What", "is", "1", "+", "?", "[UNK]", "<", ">", "user", "assistant"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[END]", unk_token="[UNK]")
    tokenizer.chat_template = ALTERNATING
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_is_loaded_and_its_vocabulary_checked(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder), vocab_hash(folder))
    assert tokenizer.eos_token_id == 0
    assert tokenizer.encode("What is 1 + 1 ?", add_special_tokens=True) == [1, 2, 3, 4, 3, 5]
    with pytest.raises(IntegrityError, match="expected 0000, as at the start"):
        load_tokenizer(str(folder), "0000")


def test_its_chat_template_is_used_and_its_refusal_named(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    assert render("r1", "What is 1?", tokenizer) == "<user>What is 1?<assistant><think>\n"
    with pytest.raises(DataError, match="refuses a chat of system, user: no system message"):
        render("tokenizer", "What is 1?", tokenizer, "Be kind.")


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot load a tokenizer from model\.path"):
        load_tokenizer(str(tmp_path))


def test_a_tokenizer_that_transformers_would_load_otherwise_is_refused(folder: Path) -> None:
    """For model type qwen2, transformers puts its own way of cutting words in the place of the folder's."""
    assert len(load_tokenizer(str(folder)).encode("What is 1 + 1 ?", add_special_tokens=False)) == 6
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(["A+5 B-12 7+5=12"] * 9, trainer)
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    load_tokenizer(str(folder))  # as it was saved
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "Qwen2Tokenizer"}))
    with pytest.raises(IntegrityError, match=r"differently than its tokenizer\.json"):
        load_tokenizer(str(folder))
