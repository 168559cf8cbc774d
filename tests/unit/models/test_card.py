"""The model card: valid front matter, figures and lineage as they stand in the folders, no paths of the machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from r1ray.cli import build_app
from r1ray.errors import ConfigError
from r1ray.models.card import Exported, markdown_table, model_card, with_error
from r1ray.models.folder import model_hash, read_shape
from r1ray.run.policy import find_policy
from tests.synthetic_run import CONFIG, write_run
from tests.unit.model_folder import write_model
from tests.unit.run.test_policy import stage


def card_of(source: Path, folder: Path) -> tuple[dict, str]:
    write_model(folder)
    exported = Exported(
        name=folder.name, shape=read_shape(folder), dtype="bfloat16", weights="final weights", model_hash="beef"
    )
    text = model_card(find_policy(source), exported)
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def lineage(folder: Path, name: str, digest: str, seconds: float, **inputs: str) -> None:
    record = {
        "seed": 7,
        "inputs": {k: {"path": "/secret/place", "digest": v} for k, v in inputs.items()},
        "output": {"path": "/secret/place", "digest": digest},
        "seconds": seconds,
        "code": {"r1ray": "0.1.0", "torch": "2.13.0"},
    }
    (folder / name / "lineage.json").write_text(json.dumps(record))


def write_recipe(folder: Path) -> Path:
    for name in ("r1_zero", "sft"):
        write_model(write_run(folder / name, steps=1) / "final")
    (folder / "sft" / "config.yaml").write_text(CONFIG.replace("path: tiny", "path: /secret/place/r1_zero/final"))
    (folder / "r1_zero" / "config.yaml").write_text(CONFIG.replace("path: tiny", "path: acme/base-1b"))
    lineage(folder, "r1_zero", "blake2b:0123456789abcdef", 90.0, base="sha256:aaaabbbbccccdddd")
    lineage(folder, "sft", "fedcba9876543210", 30.0, r1_zero="blake2b:0123456789abcdef")
    row = {
        "benchmark": "bus|long",
        "problems": 256,
        "samples": 4,
        "accuracy": 0.865,
        "accuracy_se": 0.02,
        "consensus": None,
        "consensus_se": None,
        "parts": {"format": 0.99},
        "length": 31.2,
    }
    (folder / "eval_sft").mkdir()
    results = {"model_hash": model_hash(folder / "sft" / "final"), "rows": [row]}
    (folder / "eval_sft" / "results.json").write_text(json.dumps(results))
    stages = [
        {"name": "r1_zero", **stage("rl", "@base")},
        {"name": "unrelated", **stage("sft", "@base", state="pending")},
        {"name": "sft", **stage("sft", "@r1_zero")},
    ]
    record = {"name": "r1", "doc": "All stages of R1.", "dir": str(folder), "stages": stages}
    (folder / "recipe.json").write_text(json.dumps(record))
    return folder


def test_the_card_of_a_recipe_has_its_figures_and_its_lineage(tmp_path):
    front, body = card_of(write_recipe(tmp_path / "r1"), tmp_path / "out")
    assert front["base_model"] == "acme/base-1b"
    assert front["pipeline_tag"] == "text-generation"
    assert "the stage `sft` of the recipe `r1`. All stages of R1." in body
    assert "| bus\\|long | 256 | 4 | 86.5 ± 2.0 % | – | 99% | 31.2 |" in body
    assert "| r1_zero | rl | base `aaaabbbbcccc` | 7 | `0123456789ab` | 1m 30s |" in body
    assert "| sft | sft | r1_zero `0123456789ab` | 7 | `fedcba987654` | 30.0 s |" in body
    assert "Versions: r1ray 0.1.0, torch 2.13.0." in body
    assert "temperature 0.6 and top-p 0.95" in body
    assert "`beef`" in body
    assert "unrelated" not in body
    assert str(tmp_path) not in body
    assert "/secret" not in body


def test_figures_of_an_earlier_model_are_not_on_the_card_of_a_new_one(tmp_path):
    recipe = write_recipe(tmp_path / "r1")
    (weights,) = (recipe / "sft" / "final").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes() + b"x")  # the stage was run again, its evaluation was not
    _, body = card_of(recipe, tmp_path / "out")
    assert "86.5" not in body
    assert "bus (held out, step" in body  # what the new run itself measured
    for measured in (recipe / "sft").glob("evaluation*.jsonl"):
        measured.unlink()
    _, body = card_of(recipe, tmp_path / "again")
    assert "The model was not evaluated." in body


def test_the_card_of_a_run_has_its_last_evaluations(tmp_path):
    run = write_run(tmp_path / "run", steps=10)
    write_model(run / "final")
    (run / "config.yaml").write_text(CONFIG + "data: {template: r1_zero}\n")
    front, body = card_of(run, tmp_path / "out")
    assert "base_model" not in front  # a folder is no name on the hub
    assert "made from tiny with r1ray" in body
    assert "bus (held out, step 10)" in body
    assert "the format of R1-Zero" in body
    assert "- run bus-1a2b3c" in body
    assert "vocabulary `9f2c4e1d77aa`" in body


def test_a_model_of_unknown_origin_says_no_more_than_is_known(tmp_path):
    model = write_model(tmp_path / "model")
    _, body = card_of(model, tmp_path / "out")
    assert "The model was not evaluated." in body
    assert "made with r1ray" in body


def test_cells_and_errors():
    assert markdown_table(("a", "b"), [("x|y", "1\n2")]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 2 |"
    assert (with_error(None, 0.1), with_error(0.5, None), with_error(0.5, 0.0125)) == ("–", "50.0 %", "50.0 ± 1.2 %")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "there"], "there exists, and nothing is overwritten"),
        (["run", "new", "--dtype", "int8"], "--dtype int8 is unknown"),
        (["nothing", "new"], "expected a model folder"),
        (["run", "new"], "no checkpoint to make one of"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_is_written(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", steps=1)
    (tmp_path / "there").mkdir()
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(build_app(), ["export", *words])
    assert isinstance(result.exception, ConfigError), result.output
    assert message in str(result.exception)
    assert sorted(tmp_path.rglob("*")) == before
