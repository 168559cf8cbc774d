"""`r1ray sft` with real parts: it learns, resumes bit-identical after SIGKILL, stops on a signal,
and refuses bad input.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos.machines import process_title
from r1ray.run.metrics import read_evaluations, read_events, read_metrics
from tests.integration.learner_support import run_ranks
from tests.integration.models import random_model, write_model
from tests.integration.processes import finish, processes_of, start_r1ray, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
CONFIG = Path(__file__).parent / "sft.yaml"
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
STEPS = 72


def conversations() -> Iterator[dict[str, Any]]:
    for n in range(100):
        spelled = f"{NAMES[n // 10]} {NAMES[n % 10]}"
        yield {
            "messages": [{"role": "user", "content": f"spell {n:02}"}, {"role": "assistant", "content": spelled}],
        }


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return start_r1ray("sft", *arguments)


def steps_done(run: Path) -> int:
    path = run / "metrics.jsonl"
    return sum(b'"sft/loss"' in line for line in path.read_bytes().splitlines()) if path.exists() else 0


def weights(run: Path) -> bytes:
    return (run / "final" / "model-00001.safetensors").read_bytes()


def losses(run: Path) -> list[float]:
    return [row["sft/loss"] for row in read_metrics(run)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What every run here has in common: a random model and a hundred conversations."""
    folder = tmp_path_factory.mktemp("inputs")
    write_model(random_model(seed=3), folder / "model")
    data = folder / "chats.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in conversations()))
    return [f"model.path={folder / 'model'}", f"data.train=[{{name: numbers, kind: jsonl, path: {data}}}]"]


@pytest.fixture(scope="module")
def undisturbed(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    told = finish(start(CONFIG, f"run.dir={run}", *inputs, "sft.evaluate_every_steps=24"))
    assert f"finished: step {STEPS} of {STEPS}" in told
    return run


def test_it_learns_and_the_model_loads(undisturbed: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows, held_out = read_metrics(undisturbed), read_evaluations(undisturbed)
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert rows[-1]["sft/loss"] < 0.3 * rows[0]["sft/loss"]
    assert [row["step"] for row in held_out] == [0, 24, 48, 72]
    assert held_out[-1]["token_accuracy"] > held_out[0]["token_accuracy"] + 0.3
    assert held_out[-1]["perplexity"] < held_out[0]["perplexity"]
    found = json.loads((undisturbed / "data.json").read_text())
    assert found["conversations"] + found["held_out"]["held_out"] == 100
    assert held_out[-1]["conversations"] == found["held_out"]["held_out"]

    model = AutoModelForCausalLM.from_pretrained(undisturbed / "final")
    tokenizer = AutoTokenizer.from_pretrained(undisturbed / "final")
    asked = tokenizer("User: spell 47\nAssistant:", return_tensors="pt")
    answer = model.generate(**asked, max_new_tokens=30, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert answer[-1] == tokenizer.eos_token_id  # the end was learned too
    assert set(tokenizer.decode(answer[:-1]).split()) & set(NAMES)


def test_status_tells_of_such_a_run(undisturbed: Path) -> None:
    command = [sys.executable, "-m", "r1ray", "status", str(undisturbed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert "finished" in done.stdout
    assert f"{STEPS} of {STEPS}" in done.stdout


def killed_at(run: Path, inputs: list[str], moment: Callable[[], bool]) -> None:
    driver = start(CONFIG, f"run.dir={run}", *inputs, "sft.evaluate_every_steps=24")
    wait_for(driver, "the moment to kill", moment)
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=30)


def test_killed_between_checkpoints_it_ends_with_the_same_bits(
    undisturbed: Path, inputs: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    killed_at(run, inputs, lambda: steps_done(run) >= 7)
    assert not (run / "final").exists()
    status = subprocess.run(
        [sys.executable, "-m", "r1ray", "status", str(run)], capture_output=True, text=True, timeout=30
    )
    assert f"r1ray sft --resume {run}" in status.stdout.replace("\n", "")

    finish(start("--resume", run))
    (first, second) = [e["policy_version"] for e in read_events(run) if e["kind"] == "learner_started"]
    assert first == 0
    assert 0 < second < STEPS
    assert weights(run) == weights(undisturbed)
    assert losses(run) == losses(undisturbed)
    assert [r["loss"] for r in read_evaluations(run)] == [r["loss"] for r in read_evaluations(undisturbed)]


def test_a_rank_that_is_killed_is_replaced(undisturbed: Path, inputs: list[str], tmp_path: Path) -> None:
    run = tmp_path / "rank"
    driver = start(CONFIG, f"run.dir={run}", *inputs)
    wait_for(driver, "step 6", lambda: steps_done(run) >= 6)
    ranks = [p for p in processes_of(driver) if "SftProcess" in process_title(p)]
    assert len(ranks) == 1
    ranks[0].kill()
    finish(driver)
    assert "learner_lost" in [e["kind"] for e in read_events(run)]
    assert weights(run) == weights(undisturbed)


def test_the_first_signal_saves_and_a_resume_on_two_ranks_goes_on(
    undisturbed: Path, inputs: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "stopped"
    driver = start(CONFIG, f"run.dir={run}", *inputs)
    wait_for(driver, "step 6", lambda: steps_done(run) >= 6)
    driver.send_signal(signal.SIGTERM)
    finish(driver)
    assert json.loads((run / "status.json").read_text())["state"] == "interrupted"
    saved = [e["saved"] for e in read_events(run) if e["kind"] == "interrupted"]
    assert saved == [len(read_metrics(run))]  # nothing was lost

    finish(start("--resume", run, "learner.ranks=2", "learner.zero_stage=2"))
    found, expected, at = losses(run), losses(undisturbed), saved[0]
    assert found[:at] == expected[:at]
    assert found[at : at + 4] == pytest.approx(expected[at : at + 4], abs=1e-5)
    assert found == pytest.approx(expected, rel=0.05)  # sums in another order: rounding grows with every step


def test_a_file_that_has_changed_is_another_run(undisturbed: Path, inputs: list[str], tmp_path: Path) -> None:
    run, data = tmp_path / "changed", Path(inputs[1].partition("path: ")[2].rstrip("}]"))
    shutil.copytree(undisturbed, run)
    before = data.read_text()
    try:
        data.write_text(before.replace("nine seven", "nine eight"))
        told = finish(start("--resume", run), code=3)
    finally:
        data.write_text(before)
    assert "the conversations differ from those that the run" in " ".join(told.split())
    assert weights(run) == weights(undisturbed)


# -- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("data.train.0.kind=synthetic", "has no conversations"),
        ("data.train.0.weight=2.0", "has no effect in `r1ray sft`"),
        ("data.train.0.params={subset: main}", "is not a parameter of a jsonl source"),
        ("data.train.0.columns={response: answer}", "the column 'answer' is missing"),
        ("data.template=tokenizer", "needs a chat template"),
        ("model.max_length=8", "leaves no conversation to train on"),
        ("learner.optimizer.warmup_steps=1000", "is more than the run's 72 steps"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(inputs: list[str], tmp_path: Path, change: str, told: str) -> None:
    run = tmp_path / "refused"
    output = finish(start(CONFIG, f"run.dir={run}", *inputs, change), code=2)
    assert told in " ".join(output.split())
    assert not run.exists()


# -- ranks ----------------------------------------------------------------------------------------------------------


def three_steps(rank: int, world_size: int, port: int, items: list[str], stage: int) -> Any:
    from learner.sft.rank import SftRank
    from r1ray.config.load import load_config

    os.environ["OMP_NUM_THREADS"] = "1"
    changes = [*items, f"learner.ranks={world_size}", f"learner.zero_stage={stage}", "learner.micro_batch_tokens=128"]
    config = load_config([str(CONFIG)], [*changes, "run.dir=unused"], "sft").config
    ranks = SftRank(config=config, rank=rank)
    ranks.setup("127.0.0.1", port)
    measured = [ranks.evaluate()]
    rows = [ranks.train_step() for _ in range(3)]
    measured.append(ranks.evaluate())
    ranks.close()
    timed = ("learner/step_s", "learner/tokens_per_s")
    return {"rows": [{k: v for k, v in row.items() if k not in timed} for row in rows], "measured": measured}


def test_any_number_of_ranks_and_any_stage_give_the_same_loss(inputs: list[str]) -> None:
    (one,) = run_ranks(three_steps, 1, inputs, 0)
    for world_size, stage in ((2, 0), (2, 3)):
        answers = run_ranks(three_steps, world_size, inputs, stage)
        assert answers[0] == answers[1]
        for found, expected in zip(answers[0]["rows"], one["rows"], strict=True):
            assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
        for found, expected in zip(answers[0]["measured"], one["measured"], strict=True):
            assert found[0]["loss"] == pytest.approx(expected[0]["loss"], abs=1e-5)
            assert found[0]["tokens"] == expected[0]["tokens"]
