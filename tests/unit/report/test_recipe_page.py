"""The recipe page: all sections, for finished and unfinished recipes, safe and of bounded size."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from rich.console import Console
from typer.testing import CliRunner

from r1ray.cli import build_app
from r1ray.errors import IntegrityError
from r1ray.report import build_report
from r1ray.report.recipe_page import summary_table
from r1ray.report.recipe_record import MAX_SAMPLES, load_recipe, verdicts
from r1ray.sampling.store import Part, SampleRow, write_shard
from tests.synthetic_recipe import write_recipe
from tests.unit.report.test_run_page import HOSTILE, Page, page_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("recipe") / "r1")


def rows_of(page: Page, first: str) -> list[str]:
    """Return the cells of the first row that begins with the cell `first`."""
    text = page.source.split(f'<th scope="row">{first}</th>', 1)[1].split("</tr>", 1)[0]
    return [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", text)]


def read(folder) -> Page:
    page = page_of(folder)
    page.source = (folder / "report.html").read_text(encoding="utf-8")
    return page


@pytest.fixture(scope="module")
def page(folder) -> Page:
    """The page of `folder`, which no test changes."""
    return read(folder)


def test_the_page_has_the_papers_figures(page):
    assert page.texts["h2"] == [
        "Training curves",
        "Self-corrections",
        "Language and reflection by stage",
        "Benchmarks by stage",
        "Distillation compared with reinforcement learning",
        "Published figures",
        "Data: cold_start",
        "Data: rejection",
        "Cost by stage",
        "Lineage",
    ]
    charts = page.texts["h3"]
    for wanted in ("Held-out accuracy", "Response length", "Reflective words", "Right format"):
        assert wanted in charts
    legend = " ".join(page.texts["span"])
    for wanted in ("r1_zero", "r1_zero, consensus", "reasoning_rl", "rl_all"):
        assert wanted in legend
    assert "student_rl" not in legend  # its steps are not of this model


def test_the_header_summarises_the_results(folder, page):
    recipe = load_recipe(folder)
    text = " ".join(page.texts["p"])
    assert recipe.main == "rl_all"
    accuracy = recipe.figure("rl_all", "accuracy")
    assert accuracy is not None
    assert f"rl_all solves {100 * accuracy:.0f}%" in text
    assert re.search(r"Words of the thinking in the language of the question: 6\d% after r1_zero, 9\d% now\.", text)
    assert re.search(
        r"A distilled student reaches \d+%; the same student trained by reinforcement learning \d+%\.", text
    )


def test_stages_share_one_axis_of_steps(page):
    data = json.loads(page.texts["script"][0])
    assert data["last"] == 40 + 24 + 24
    lines = data["panels"][0]  # accuracy, two lines per stage
    assert [(line[0][0], line[-1][0]) for line in lines[::2]] == [(0, 40), (40, 64), (64, 88)]
    assert page.source.count('class="mark"') >= 2


def test_each_policy_has_a_row_with_standard_errors(page):
    shown = rows_of(after(page, "Benchmarks by stage"), "rl_all")
    assert shown[0] == "bus"
    assert re.fullmatch(r"\d+\.\d ± \d+\.\d %", shown[1])
    assert re.fullmatch(r"\d+\.\d ± \d+\.\d %", shown[2])
    assert shown[3] == "100%"
    assert shown[4].startswith("9")  # language


def after(page: Page, title: str) -> Page:
    """Return the page from the section `title` on."""
    rest = Page("")
    rest.source = page.source.split(f"<h2>{title}</h2>", 1)[1]
    return rest


def test_language_is_measured_in_the_samples(page):
    before, now = (rows_of(page, name) for name in ("r1_zero", "rl_all"))
    assert 50 < int(before[0].rstrip("%")) < 70
    assert int(now[0].rstrip("%")) > 95
    assert int(before[1].rstrip("%")) > 90  # mixed responses
    assert before[4] == "192"


def test_published_figures_are_marked(page):
    assert rows_of(page, "DeepSeek-R1 (published)")[1:] == ["80%", "–", "v1"]
    data = after(page, "Data: rejection")
    assert rows_of(data, "math (published)")[3:5] == ["395,285", "49%"]
    assert rows_of(data, "bus")[:5] == ["512", "2,048", "1,760", "1,048", "84%"]
    assert "(published)" not in page.source.split("<h2>Data: cold_start</h2>")[1].split("<h2>")[0]


def test_cost_adds_up(page):
    page = after(page, "Cost by stage")
    assert rows_of(page, "r1_zero")[:3] == ["rl", "done", "3m 30s"]
    assert rows_of(page, "evaluations")[1] == "8 of 8 done"
    assert rows_of(page, "cold_start_sft")[4] == "38,000"
    assert rows_of(page, "all")[2:4] == ["19m 03s", "100%"]


def test_tables_can_be_copied(page):
    buttons = [a["data-format"] for tag, a in page.elements if tag == "button"]
    tables = [a for tag, a in page.elements if tag == "table" and "data-copy" in a]
    assert buttons == ["markdown", "csv"] * len(tables)
    assert page.count("table") == len(tables)


def test_an_unfinished_recipe_has_a_valid_page(tmp_path):
    page = read(write_recipe(tmp_path / "none", done=0))
    assert "No policy of this recipe has been trained and evaluated yet." in " ".join(page.texts["p"])
    assert page.texts["h2"] == ["Cost by stage", "Lineage"]
    page = read(write_recipe(tmp_path / "two", done=2, problems=8))
    assert "r1_zero solves" in " ".join(page.texts["p"])
    assert "Distillation compared with reinforcement learning" not in page.texts["h2"]
    assert rows_of(after(page, "Cost by stage"), "rl_all")[:3] == ["rl", "pending", "–"]


def test_text_of_recipes_and_models_is_escaped(tmp_path):
    folder = write_recipe(tmp_path / "r1", done=2, problems=8)
    record = json.loads((folder / "recipe.json").read_text())
    record["doc"] = record["stages"][0]["doc"] = record["name"] = HOSTILE
    (folder / "recipe.json").write_text(json.dumps(record))
    path = folder / "r1_zero" / "transcripts.jsonl"
    said = json.loads(path.read_text().splitlines()[0])
    said["text"] = f"<think>it is 3 {HOSTILE} wait it is 4</think><answer>4</answer>"
    said |= {"prompt": HOSTILE, "parts": {"accuracy": 1.0}, "prompt_id": "hostile"}
    path.write_text(json.dumps(said) + "\n" + path.read_text())
    page = read(folder)
    assert page.count("script") == 2
    assert page.count("img") == 0
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.texts["mark"][0] == "wait"
    assert not re.search(r"https?://|@import|url\(|\bsrc=\"", page.source)


def test_the_analysed_samples_are_limited(tmp_path):
    folder = write_recipe(tmp_path / "r1", done=2, problems=8)
    row = next(iter(load_recipe(folder).stage("eval_r1_zero").samples()))
    shard = [SampleRow(**{**{k: getattr(row, k) for k in SampleRow.__slots__}, "sample": k}) for k in range(3000)]
    write_shard(folder / "eval_r1_zero" / "samples", Part(source="bus", start=8, stop=9), shard)
    seen = list(load_recipe(folder).stage("eval_r1_zero").samples())
    assert len(seen) <= MAX_SAMPLES
    assert {s.source for s in seen} == {"bus", "bus-long"}

    fields = {k: getattr(row, k) for k in SampleRow.__slots__}
    long = [SampleRow(**{**fields, "sample": k, "response": "so " * 500_000}) for k in range(8)]
    write_shard(folder / "eval_r1_zero" / "samples", Part(source="bus", start=8, stop=9), long)
    assert (
        sum(len(s.response) > 1000 for s in load_recipe(folder).stage("eval_r1_zero").samples()) == 2
    )  # of three shards

    path = folder / "r1_zero" / "transcripts.jsonl"
    said = json.loads(path.read_text().splitlines()[0])
    said["text"] = "<think>" + "so " * 100_000 + "it is 3 wait it is 4" + " so" * 100_000 + "</think><answer>4</answer>"
    said |= {"parts": {"accuracy": 1.0}, "prompt_id": "endless"}
    path.write_text(json.dumps(said) + "\n" + path.read_text())
    page = read(folder)
    assert page.texts["mark"]
    assert len(page.source) < 200_000


def test_a_damaged_file_is_named(tmp_path):
    folder = write_recipe(tmp_path / "r1", done=2, problems=8)
    (folder / "eval_r1_zero" / "results.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"results\.json"):
        build_report(folder)


def test_figures_as_json(folder):
    result = CliRunner().invoke(build_app(), ["report", str(folder), "--json"])
    found = json.loads(result.stdout)
    assert found["main"] == "rl_all"
    assert found["stages"]["distill"] == {"kind": "sft", "state": "done", "seconds": 27.0}
    assert found["policies"]["distill"]["bus"]["problems"] == 24


def test_a_running_stage_is_shown_with_its_ancestor(tmp_path):
    folder = write_recipe(tmp_path / "r1", done=4, problems=8)  # up to the supervised stage
    assert load_recipe(folder).main == "cold_start_sft"
    under_way = write_recipe(tmp_path / "other", done=5, problems=8)
    (under_way / "reasoning_rl").rename(folder / "reasoning_rl")
    (folder / "reasoning_rl" / "lineage.json").unlink()
    legend = " ".join(read(folder).texts["span"])
    assert "reasoning_rl" in legend
    assert "student_rl" not in legend


def test_shared_versions_are_listed_once(tmp_path):
    folder = write_recipe(tmp_path / "r1", done=2, problems=8)
    path = folder / "r1_zero" / "lineage.json"
    record = json.loads(path.read_text())
    record["code"] |= {"torch": "2.14.0", "commit": "0123456789abcdef0123456789abcdef01234567+"}
    path.write_text(json.dumps(record))
    text = " ".join(read(folder).texts["p"])
    assert "Versions: r1ray 0.1.0, python 3.11.2, torch 2.13.0 and 2.14.0, commit 0123456789+." in text


def test_the_summary_fits_into_a_terminal(folder):
    console = Console(width=100, record=True)
    table = summary_table(recipe := load_recipe(folder))
    assert table is not None
    console.print(table)
    lines = console.export_text().splitlines()
    for policy in recipe.evaluated():
        (line,) = [line for line in lines if line.startswith(f"{policy} ")]
        assert f"{100 * recipe.figure(policy, 'accuracy'):.1f} ±" in line
    assert lines[1].split()[:4] == ["policy", "accuracy", "format", "tokens"]


def test_without_evaluations_there_is_no_table(folder, tmp_path):
    shutil.copytree(folder, young := tmp_path / "young")
    for results in young.glob("*/results.json"):
        results.unlink()
    assert summary_table(load_recipe(young)) is None


def test_results_of_a_stage_that_must_run_again_are_ignored(tmp_path):
    folder = write_recipe(tmp_path / "r1", problems=8)
    record = json.loads((folder / "recipe.json").read_text())
    record["claims"] = [
        {"name": "good", "figure": "accuracy", "of": "rl_all", "relation": "above", "bound": 0.1, "margin": 0.0}
        | {"benchmark": None}
    ]
    (folder / "recipe.json").write_text(json.dumps(record))
    assert [verdict.holds for verdict in verdicts(load_recipe(folder))] == [True]
    again = ("eval_rl_all", "rejection", "student_rl")
    for stage in record["stages"]:
        if stage["name"] in again:
            stage["state"] = "pending"
    (folder / "recipe.json").write_text(json.dumps(record))
    recipe = load_recipe(folder)
    assert "rl_all" not in recipe.evaluated()
    assert [verdict.holds for verdict in verdicts(recipe)] == [False]
    found = {stage.name: stage for stage in recipe.stages}
    assert not found["rejection"].mix
    assert found["student_rl"].run is None
    assert not any(found[name].lineage or found[name].seconds for name in again)
    assert found["rl_all"].lineage
    assert "Data: rejection" not in read(folder).texts["h2"]
