"""The embedded base model, really built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from learner.tiny import build
from learner.tiny.bilingual import WORDS
from learner.tiny.bilingual import documents as bilingual_documents
from learner.tiny.build import LEAST_SKILL, WeakBaseModel, build_tiny_model, is_current, write_model
from learner.tiny.corpus import TAGS, documents
from learner.tiny.flavors import FLAVORS
from learner.tiny.pretrain import Schedule, pack
from learner.tiny.recipe import RECORD, Size
from learner.tiny.tokenizer import END_ID, encode, write_tokenizer
from r1ray.config.schema import ModelConfig
from r1ray.data.templates import render
from r1ray.data.vocab import vocab_hash
from r1ray.errors import ConfigError
from tests.integration.learner_support import load_policy

pytestmark = pytest.mark.integration

SHORT = Schedule(steps=40, per_step=8, warmup_steps=5)
SIZES: tuple[Size, ...] = ("base", "student")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "model"
    write_model(path, seed=0, size="student", schedule=SHORT)
    return path


def test_pretraining_lowers_the_loss_and_reports_every_step(tmp_path: Path) -> None:
    seen: list[tuple[int, int, float]] = []
    report = write_model(
        tmp_path / "model", seed=1, size="student", schedule=SHORT, progress=lambda *step: seen.append(step)
    )
    losses = [loss for _, _, loss in seen]
    assert [(done, total) for done, total, _ in seen] == [(n, 40) for n in range(1, 41)]
    assert losses[-1] == report.loss
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert report.tokens == sum(
        len(d.prompt) + len(d.response) for d in encode(_tokenizer(tmp_path / "model"), documents(1, 320))
    )


def test_transformers_computes_what_the_trainer_computed(folder: Path) -> None:
    """The saved folder, read by transformers' own attention one document at a time, against the packed row."""
    from transformers import AutoModelForCausalLM

    corpus = encode(_tokenizer(folder), documents(seed=5, count=12))
    policy = load_policy(ModelConfig(path=str(folder), dtype="float32"), folder)
    reference = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        packed_T, _ = policy(pack(corpus))
        rows = []
        for document in corpus:
            ids = torch.tensor([*document.prompt, *document.response])
            logprobs = reference(ids[None]).logits[0].log_softmax(-1)
            rows.append(logprobs[:-1].gather(1, ids[1:, None])[len(document.prompt) - 1 :, 0])
    assert torch.allclose(packed_T, torch.cat(rows), atol=1e-4)
    assert packed_T.std() > 0.1


def test_the_folder_is_what_other_tools_expect(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    assert config["vocab_size"] == FLAVORS["plain"].vocabulary
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == END_ID
    assert json.loads((folder / RECORD).read_text())["parameters"] == 130_304


def test_the_tokenizer_reads_text_as_in_training(folder: Path) -> None:
    tokenizer = _tokenizer(folder)
    problem = "bus 7 A+5 B-3 C+8"
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode(problem))[3:8] == ["7", "ĠA", "+", "5", "ĠB"]
    assert [len(tokenizer.encode(tag)) for tag in TAGS] == [1, 1, 1, 1]
    text = "<think>7 A+5=12</think><answer>12</answer>"
    assert tokenizer.decode([*tokenizer.encode(text), END_ID], skip_special_tokens=True) == text
    assert vocab_hash(tokenizer) == vocab_hash(folder)
    chat = [{"role": "user", "content": problem}]
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == render(
        "plain", problem, tokenizer
    )


def test_every_build_has_the_same_vocabulary(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    write_tokenizer(tmp_path, FLAVORS["plain"])
    assert vocab_hash(tmp_path) == vocab_hash(folder)


def test_a_splitter_that_transformers_replaces_is_seen_in_the_hash(folder: Path, tmp_path: Path) -> None:
    """The trap that the tokenizer's module tells of: saved with one pre-tokenizer, loaded with another, no error."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    saved = json.loads((folder / "tokenizer.json").read_text())
    saved["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    assert vocab_hash(_tokenizer(tmp_path)) != vocab_hash(tmp_path)


def test_a_weak_model_is_refused_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "Schedule", lambda **_: Schedule(steps=2, per_step=2, warmup_steps=1))
    with pytest.raises(WeakBaseModel, match="another seed"):
        build_tiny_model(tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


def test_a_build_replaces_an_earlier_one_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "Schedule", lambda **_: Schedule(steps=2, per_step=2, warmup_steps=1))
    path = tmp_path / "tiny"
    path.mkdir()
    (path / "somebodys.safetensors").write_text("precious")
    with pytest.raises(ConfigError, match="move it away"):
        build_tiny_model(path, size="student")
    (path / RECORD).write_text("{}")
    before = torch.get_num_threads()
    build_tiny_model(path, size="student", threads=1)
    assert is_current(path)
    assert not (path / "somebodys.safetensors").exists()
    assert list(tmp_path.iterdir()) == [path]
    assert torch.get_num_threads() == before


def test_the_bilingual_flavour_reads_its_words_whole_and_shares_one_vocabulary(tmp_path: Path) -> None:
    """Base and student must agree in their tokens, else the student could not be distilled from samples of the base."""
    reports = {
        size: write_model(tmp_path / size, seed=0, size=size, flavor="bilingual", schedule=SHORT) for size in SIZES
    }
    assert [reports[size].parameters for size in SIZES] == [696_320, 134_848]
    assert vocab_hash(tmp_path / "base") == vocab_hash(tmp_path / "student")
    assert json.loads((tmp_path / "base" / "config.json").read_text())["vocab_size"] == FLAVORS["bilingual"].vocabulary
    tokenizer = _tokenizer(tmp_path / "base")
    assert vocab_hash(tokenizer) == vocab_hash(tmp_path / "base")
    for words in WORDS.values():
        for word in words[:2]:  # on and off
            assert len(tokenizer.encode(f" {word}")) == 1, word
    for document in bilingual_documents(seed=3, count=200):
        text = document.prompt + document.response
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_base_model_has_learned_its_arithmetic(tmp_path: Path) -> None:
    report = build_tiny_model(tmp_path / "tiny", seed=0, threads=1)
    assert report.parameters == 687_232
    assert report.skill >= LEAST_SKILL


def _tokenizer(path: Path):  # type: ignore[no-untyped-def]
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)
