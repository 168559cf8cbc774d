"""Scoring files: what is kept, what is added, what is wrong with a line, and going on after an interruption."""

import json
import math
import tracemalloc

import pytest
from typer.testing import CliRunner

from r1ray.cli import build_app
from r1ray.cli.score import reward_configs
from r1ray.errors import ConfigError
from r1ray.rewards.offline import Times, how_file, sample_of, score_file
from tests.unit.reward_support import reward, scorer

ROWS = [
    {"id": 1, "response": "<think>hm</think> <answer>7</answer><|im_end|>", "answer": 7, "end_token": "<|im_end|>"},
    {"id": 2, "response": "the answer is 8", "answer": "7", "note": "kept"},
    {"id": 3, "response": "half a pair \ud800", "answer": "7"},
]
BROKEN = [
    "{oops",
    "[1]",
    '{"answer": 7}',
    '{"response": "7", "answer": null}',
    '{"response": "7", "answer": 7, "tokens": "many"}',
    '{"response": "7", "answer": 7, "end_token": 5}',
]


def write(path, rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(source, out, *rewards):
    rewards = rewards or [reward("accuracy", verifier="math"), reward("format", 0.5)]
    with scorer(*rewards) as s:
        return score_file(source, out, s, lambda size: None, {"rewards": [[r.name, r.params] for r in rewards]})


def test_lines_keep_their_fields_and_order(tmp_path):
    source, out = write(tmp_path / "in.jsonl", [*ROWS, "", *BROKEN]), tmp_path / "out.jsonl"
    summary = run(source, out)
    rows = read(out)
    assert rows[0] == {**ROWS[0], "reward": 1.5, "parts": {"accuracy": 1.0, "format": 1.0}, "error": None}
    assert rows[1] == {**ROWS[1], "reward": 0.0, "parts": {"accuracy": 0.0, "format": 0.0}, "error": None}
    assert rows[2]["response"] == ROWS[2]["response"]
    assert [row["reward"] for row in rows[3:]] == [None] * 6
    assert [row["error"].split(":")[0] for row in rows[3:]] == ["DataError"] * 6
    assert [row["line"].strip() for row in rows[3:5]] == BROKEN[:2]
    assert (summary.lines, summary.errors["DataError"], summary.resumed) == (9, 6, 0)
    assert summary.mean == pytest.approx(0.5)
    assert summary.times.quantile(0.5) > 0


def test_resume_after_a_killed_run(tmp_path):
    rows = [{"response": f"the answer is {i}", "answer": i - i % 2} for i in range(600)]
    source, whole, torn = write(tmp_path / "in.jsonl", rows), tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    first = run(source, whole)
    torn.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    how_file(torn).write_bytes(how_file(whole).read_bytes())
    second = run(source, torn)
    assert torn.read_bytes() == whole.read_bytes()
    assert 250 < second.resumed < 350
    assert (second.lines, second.mean, second.parts) == (first.lines, first.mean, first.parts)
    assert run(source, torn).resumed == 600


def test_output_of_another_run_is_refused(tmp_path):
    source, out = write(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    run(source, out)
    before = out.read_bytes()
    with pytest.raises(ConfigError, match=r"was scored with rewards = .*accuracy"):
        run(source, out, reward("format"))
    with pytest.raises(ConfigError, match=r"was scored with rewards = .*math.*now rewards = .*exact"):
        run(source, out, reward("accuracy", verifier="exact"), reward("format", 0.5))
    with pytest.raises(ConfigError, match=r"line 1 differs"):
        run(write(tmp_path / "other.jsonl", ROWS[1:]), out)
    with pytest.raises(ConfigError, match=r"line 3 differs"):
        run(write(tmp_path / "shorter.jsonl", ROWS[:2]), out)
    how_file(out).unlink()
    with pytest.raises(ConfigError, match=r"out\.jsonl\.how\.json, which holds their settings, is missing"):
        run(source, out)
    assert out.read_bytes() == before


def test_row_with_both_answer_and_tests(tmp_path):
    from r1ray.rewards.execution.code import CodeVerifier

    tests = {"entry_point": "f", "test": "def check(c): assert c(1) == 2"}
    row = {"response": "```python\n    return x + 1\n```\nThe answer is 7", "answer": 7, "tests": tests}
    sample = sample_of({**row, "prompt": "def f(x):\n"})
    assert sample.answer == 7
    assert json.loads(CodeVerifier()(sample).args["tests"])["kind"] != "stdio"
    assert run(write(tmp_path / "in.jsonl", [row]), tmp_path / "o", reward("accuracy", verifier="math")).mean == 1.0


def test_memory_stays_flat(tmp_path):
    def peak(lines):
        source = write(
            tmp_path / f"{lines}.jsonl", [{"response": f"the answer is {i}", "answer": i} for i in range(lines)]
        )
        tracemalloc.start()
        try:
            run(source, tmp_path / f"{lines}.out.jsonl", reward("accuracy", verifier="math"))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(500)  # what is loaded once
    small = peak(600)
    assert peak(6_000) < 1.3 * small


def test_quantiles():
    times = Times()
    assert math.isnan(times.quantile(0.5))
    for i in range(1, 1001):
        times.add(i / 1000)
    assert times.quantile(0.5) == pytest.approx(0.5, rel=0.06)
    assert times.quantile(0.99) == pytest.approx(0.99, rel=0.06)


def test_rewards_from_command_line_options():
    made = reward_configs(["math", "code", "format"], ["code.partial=true", "format.style=think"])
    assert [(r.name, r.params) for r in made] == [
        ("accuracy/math", {"verifier": "math"}),
        ("accuracy/code", {"verifier": "code", "partial": True}),
        ("format", {"style": "think"}),
    ]
    assert [r.name for r in reward_configs(["choice"], [])] == ["accuracy"]
    for wrong in ("partial=true", "choice.x", "cod.partial=true"):
        with pytest.raises(ConfigError, match=r"REWARD\.KEY=VALUE"):
            reward_configs(["code"], [wrong])


def test_the_command(tmp_path):
    source, out = write(tmp_path / "in.jsonl", [*ROWS, *BROKEN]), tmp_path / "out.jsonl"
    result = CliRunner().invoke(
        build_app(), ["score", str(source), "--reward", "exact", "--reward", "format", "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    assert len(read(out)) == 9
    assert "accuracy" in result.output
    assert "DataError" in result.output
    assert "p99" in result.output
    again = CliRunner().invoke(
        build_app(), ["score", str(source), "--reward", "exact", "--reward", "format", "--out", str(out)]
    )
    assert "9 of 9 lines were scored by an earlier run" in again.output
    missing = CliRunner().invoke(build_app(), ["score", str(tmp_path / "no.jsonl"), "--reward", "exact"])
    assert isinstance(missing.exception, ConfigError)
