"""Claims of a recipe: reading them, writing them to recipe.json, checking them with `r1ray verify`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from r1ray.cli import build_app
from r1ray.config.sources import CONF_DIR
from r1ray.errors import ConfigError
from r1ray.recipe.reading import read_recipe
from r1ray.recipe.stages import Recipe
from tests import synthetic_recipe
from tests.unit.recipe_support import RECIPE, overlay, run
from tests.unit.recipe_support import write_recipe as write_file


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def claimed(text: str, *overlays: str) -> Recipe:
    return read_recipe(write_file(f"{RECIPE}\nclaims: {{{text}}}\n"), overlays)


def verify(folder: Path, text: str, *options: str) -> Result:
    """Run `r1ray verify` on a finished recipe with the claims `text`."""
    synthetic_recipe.write_recipe(folder, problems=8)
    record = json.loads((folder / "recipe.json").read_text())
    stages = "\n".join(f"  {name}: {{kind: rl}}" for name in synthetic_recipe.POLICIES)
    evaluation = "evaluation: {options: {benchmarks: [bus]}}"
    Path("recipe.yaml").write_text(f"name: r1\ndir: out\n{evaluation}\nstages:\n{stages}\nclaims: {{{text}}}\n")
    record["claims"] = [asdict(claim) for claim in read_recipe(Path("recipe.yaml")).claims]
    (folder / "recipe.json").write_text(json.dumps(record))
    return CliRunner().invoke(build_app(), ["verify", str(folder), *options])


def test_verify_succeeds_if_all_claims_hold(tmp_path: Path) -> None:
    found = verify(
        tmp_path / "r1",
        "better: {figure: accuracy, of: distill, above: student_rl}, "
        "near: {figure: accuracy, of: sft, at_least: r1_zero, margin: -0.5, benchmark: bus-long}, "
        "form: {figure: parts/format, of: rl_all, at_least: r1_zero}, "
        "weak: {figure: accuracy, of: base, below: 0.5}",
    )
    assert found.exit_code == 0, found.output
    assert found.output.count("holds: ") == 4
    assert "does not" not in found.output


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ("{figure: accuracy, of: student_rl, above: distill}", "accuracy of student_rl"),
        ("{figure: parts/format, of: rl_all, above: r1_zero}", "parts/format of rl_all (1) > r1_zero (1), on bus"),
        ("{figure: accuracy, of: rl_all, below: 0.1}", "< 0.1"),
        ("{figure: parts/helpful, of: rl_all, at_least: 0.1}", "parts/helpful of rl_all (not measured) >= 0.1"),
        ("{figure: parts, of: rl_all, at_least: 0.1}", "parts of rl_all (not measured) >= 0.1"),
        ("{figure: benchmark, of: rl_all, above: 0}", "benchmark of rl_all (not measured)"),
        ("{figure: accuracy, of: rl_all, at_least: 0.1, benchmark: gsm8k}", "(not measured) >= 0.1, on gsm8k"),
    ],
)
def test_verify_names_a_claim_that_does_not_hold(tmp_path: Path, claim: str, said: str) -> None:
    found = verify(tmp_path / "r1", f"wrong: {claim}, right: {{figure: accuracy, of: rl_all, above: 0}}")
    assert found.exit_code == 3
    (line,) = [line for line in found.output.splitlines() if line.startswith("does not hold: wrong: ")]
    assert said in line
    assert "holds: right: " in found.output
    told = json.loads(verify(tmp_path / "again", f"wrong: {claim}", "--json").output)
    assert told["claims"]["wrong"]["holds"] is False


def test_an_overlay_changes_adds_and_removes_claims() -> None:
    size = overlay(
        "claims: {a: null, b: {figure: accuracy, of: tuned, above: 0.5}, c: {figure: length, of: zero, below: 9}}"
    )
    first = "a: {figure: accuracy, of: zero, above: 0.1}, b: {figure: accuracy, of: tuned, above: zero}"
    claims = claimed(first, size).claims
    assert [(c.name, c.of, c.relation, c.bound) for c in claims] == [
        ("b", "tuned", "above", 0.5),
        ("c", "zero", "below", 9.0),
    ]
    assert claimed(first).claims[1].bound == "zero"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: {figure: accuracy, of: zeros, above: 0.1}", "does not evaluate zeros.*did you mean zero"),
        ("a: {figure: accuracy, of: zero, above: helpful}", "does not evaluate helpful"),
        ("a: {figure: accuracy, of: zero}", "expected exactly one of at_least, above, below, got 0"),
        (
            "a: {figure: accuracy, of: zero, above: 1, below: 2}",
            "expected exactly one of at_least, above, below, got 2",
        ),
        ("a: {of: zero, above: 1}", "not a valid claim"),
        ("a: {figure: accuracy, of: zero, above: 1, margin: much}", "not a valid claim"),
        ("a: {figure: accuracy, of: zero, above: [1]}", "expected a policy or a number"),
        ("a: {figure: accuracy, of: zero, above: 1, than: 2}", "no such key"),
    ],
)
def test_an_invalid_claim_is_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s)claims.a.*{told}"):
        claimed(text)


def test_claims_are_recorded_and_do_not_invalidate_stages() -> None:
    path = write_file()
    assert run(path) == 0
    path.write_text(f"{RECIPE}\nclaims: {{a: {{figure: accuracy, of: zero, above: 0.1}}}}\n")
    assert run(path) == 0
    record = json.loads(Path("out/recipe.json").read_text())
    assert record["claims"][0]["of"] == "zero"
    assert not list(Path("out").glob("*.1"))


def test_the_tiny_recipe_has_the_claims_of_r1() -> None:
    recipe = read_recipe(CONF_DIR / "recipes" / "r1.yaml", ["recipes/r1.tiny"])
    told = {(c.figure, c.of, c.relation, c.bound, c.margin) for c in recipe.claims}
    assert told == {
        ("parts/language", "r1_zero", "below", 0.8, 0.0),
        ("parts/language", "reasoning_rl", "above", 0.95, 0.0),
        ("parts/language", "rl_all", "at_least", "r1_zero", 0.0),
        ("parts/format", "rl_all", "at_least", "r1_zero", 0.0),
        ("accuracy", "rl_all", "at_least", "r1_zero", -0.03),
        ("accuracy", "distill", "above", "student_rl", 0.0),
    }
