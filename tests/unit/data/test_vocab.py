"""The vocabulary hash: equal for equal ids, different for anything that changes them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1ray.data.tokenizer import unused_ids
from r1ray.data.vocab import vocab_hash
from r1ray.errors import ConfigError

TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\d"}},
    "post_processor": None,
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
    "added_tokens": [
        {"id": 3, "content": "<think>", "special": False},
        {"id": 4, "content": "</think>", "special": False},
    ],
}


def folder(path: Path, change: Callable[[dict[str, Any]], Any] = lambda t: None) -> Path:
    tokenizer = copy.deepcopy(TOKENIZER)
    change(tokenizer)
    path.mkdir()
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.update(truncation={"max_length": 5}),
        lambda t: t["model"].update(merges=["a b"]),
        lambda t: t["model"].update(vocab={"ab": 2, "b": 1, "a": 0}),
        lambda t: t["added_tokens"].reverse(),
    ],
)
def test_the_same_tokenizer_written_otherwise_has_the_same_hash(tmp_path: Path, change: Any) -> None:
    assert vocab_hash(folder(tmp_path / "other", change)) == vocab_hash(folder(tmp_path / "one"))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t["model"]["vocab"].update(a=1, b=0),
        lambda t: t["model"].update(merges=[["b", "a"]]),
        lambda t: t["added_tokens"].pop(),
        lambda t: t["added_tokens"][0].update(special=True),
        lambda t: t["pre_tokenizer"]["pattern"].update(Regex="\\d+"),
        lambda t: t.update(normalizer=None),
    ],
)
def test_what_changes_ids_changes_the_hash(tmp_path: Path, change: Any) -> None:
    assert vocab_hash(folder(tmp_path / "other", change)) != vocab_hash(folder(tmp_path / "one"))


def test_a_loaded_tokenizer_has_the_hash_of_its_folder(tmp_path: Path) -> None:
    class Backend:
        def to_str(self) -> str:
            return json.dumps(TOKENIZER)

    class Loaded:
        backend_tokenizer = Backend()

    assert vocab_hash(Loaded()) == vocab_hash(folder(tmp_path / "one"))


def test_older_formats_are_hashed_by_content(tmp_path: Path) -> None:
    hashes = set()
    for content in (b"one", b"two"):
        (tmp_path / "tokenizer.model").write_bytes(content)
        hashes.add(vocab_hash(tmp_path))
    assert len(hashes) == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"added_tokens": [{}]}'])
def test_a_folder_without_a_readable_tokenizer_is_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigError, match="has no tokenizer"):
        vocab_hash(tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match="cannot read"):
        vocab_hash(tmp_path)


def test_ids_of_padding_and_of_holes_have_no_token():
    class Vocabulary:
        def get_vocab(self):
            return {"a": 0, "b": 1, "<end>": 4}

    assert unused_ids(Vocabulary(), 7) == [2, 3, 5, 6]
    assert unused_ids(Vocabulary(), 2) == []
