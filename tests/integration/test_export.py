"""`r1ray export` on real weights: from a final model, from a checkpoint, read back by transformers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from learner import checkpoint
from learner.parts import whole
from r1ray.cli import build_app
from r1ray.config.schema import Config
from r1ray.data.templates import render
from r1ray.models.folder import model_hash
from tests.integration.models import random_experts, random_model, write_model
from tests.synthetic_run import write_run
from tests.unit.rank_support import alone

pytestmark = pytest.mark.integration


def export(*words: str | Path) -> None:
    result = CliRunner().invoke(build_app(), ["export", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def write_trained(folder: Path, template: str) -> Path:
    """A run folder whose configuration names a base model beside it."""
    run = write_run(folder / "run", steps=1)
    write_model(random_model(seed=0), folder / "base")
    config = {"run": {"seed": 3}, "model": {"path": str(folder / "base"), "dtype": "float32"}}
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "data": {"template": template}}))
    return run


def save(run: Path, step: int, model: torch.nn.Module) -> None:
    """A checkpoint of the learner with the weights of `model`."""
    weights = {f"weight/hf.{name}": p.data for name, p in model.named_parameters()}
    moments = {f"exp_avg/hf.{name}": torch.zeros_like(p.data) for name, p in model.named_parameters()}
    parts = [whole(name, tensor) for name, tensor in (weights | moments).items()]
    engine = SimpleNamespace(parts=lambda: parts, applied_steps=step)
    folder = run / "checkpoints" / f"step_{step:06d}"
    rng = torch.zeros(1, 8, dtype=torch.uint8)
    of_run = {"run_id": "run-1", "config": Config()}
    checkpoint.save(folder, engine=engine, reference=None, policy_version=step, rng=rng, ranks=alone(), **of_run)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(5)[None]).logits


def test_a_final_model_keeps_its_tokenizer_and_changes_its_type(tmp_path: Path) -> None:
    run = write_trained(tmp_path, "r1_zero")
    model = random_model(seed=1)
    write_model(model, run / "final")
    (run / "final" / "build.json").write_text("{}")
    (run / "final" / "README.md").write_text("the base model's own")
    export(run, tmp_path / "out", "--dtype", "bfloat16")

    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"README.md", "config.json", "tokenizer.json", "chat_template.jinja", "model-00001.safetensors"}
    assert "build.json" not in names
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (run / "final" / name).read_bytes()

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.dtype == torch.bfloat16
    for name, tensor in loaded.named_parameters():
        assert torch.equal(tensor, model.get_parameter(name).to(torch.bfloat16))
    assert (loaded.generation_config.temperature, loaded.generation_config.top_p) == (0.6, 0.95)

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    chat = [{"role": "user", "content": "What is 7 + 5?"}]
    framed = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert framed == render("r1_zero", "What is 7 + 5?", tokenizer)

    card = (tmp_path / "out" / "README.md").read_text()
    assert model_hash(tmp_path / "out") in card
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "transformers"
    assert "the base model's own" not in card


def test_a_run_that_still_goes_on_gives_its_newest_whole_checkpoint(tmp_path: Path) -> None:
    run = write_trained(tmp_path, "plain")
    models = {step: random_model(seed=step) for step in (10, 20, 30)}
    for step, model in models.items():
        save(run, step, model)
    torn = run / "checkpoints" / "step_000030" / "state-00001.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])

    export(run, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.dtype == torch.float32
    assert torch.equal(logits(loaded), logits(models[20]))
    assert "Weights: checkpoint step_000020." in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize("kind", ["qwen3_moe", "deepseek_v3"])
def test_a_checkpoint_of_experts_has_the_names_and_buffers_of_a_model_folder(kind: str, tmp_path: Path) -> None:
    run = write_trained(tmp_path, "plain")
    base = write_model(random_experts(kind, seed=0), tmp_path / "base")
    trained = random_experts(kind, seed=1)
    for name, buffer in random_experts(kind, seed=0).named_buffers():  # training leaves them as they are
        trained.get_buffer(name).copy_(buffer)
    save(run, 10, trained)
    export(run, tmp_path / "out")

    assert stored_names(tmp_path / "out") == stored_names(base)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), logits(trained))


def stored_names(folder: Path) -> set[str]:
    found: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found.update(file.keys())
    return found
