"""The whole loop on real parts, as a user runs it: train, verify, resume, load what came out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from r1ray.run.metrics import read_evaluations, read_events, read_metrics
from tests.integration.models import random_experts, random_model, write_model
from tests.integration.processes import share_fork_servers

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
HERE = Path(__file__).parent


def r1ray(*arguments: str | Path, timeout: float = 400.0) -> subprocess.CompletedProcess[str]:
    share_fork_servers()
    command = [sys.executable, "-m", "r1ray", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def train(run: Path, model: Path, *changes: str) -> subprocess.CompletedProcess[str]:
    return r1ray("train", HERE / "loop.yaml", f"run.dir={run}", f"model.path={model}", *changes)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(random_model(seed=1), tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "loop"
    done = train(folder, model)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder


def test_every_step_is_trained_and_written_up(run: Path) -> None:
    rows = read_metrics(run)
    assert [row["step"] for row in rows] == [0, 1, 2]
    for row in rows:
        assert row["batch/tokens"] > 0
        assert 0 <= row["staleness/max"] <= 1
        assert row["train/grad_norm"] > 0
    # Step 0 trains on tokens of the very policy in the learner: both sides must agree on their log-probabilities.
    assert rows[0]["mismatch/tokens"] > 0
    assert rows[0]["mismatch/max"] < 1e-4
    assert (
        "Failed to load weights" not in (run / "logs" / "rollout-0.log").read_text()
    )  # vLLM's, about what is not sent
    assert {(e["step"], e["source"]) for e in read_evaluations(run)} == {(0, "heldout"), (3, "heldout")}


def test_the_ledger_is_clean(run: Path) -> None:
    done = r1ray("verify", run, "--json")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["violations"] == []


def test_the_final_model_loads_in_transformers(run: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(run / "final")
    tokens = AutoTokenizer.from_pretrained(run / "final")("User: 1+1", return_tensors="pt")
    assert model(**tokens).logits.shape[-1] == 272


def test_a_finished_run_goes_on_where_it_ended(run: Path) -> None:
    done = r1ray("train", "--resume", run, "run.steps=5")
    assert done.returncode == 0, done.stderr + done.stdout
    assert [row["step"] for row in read_metrics(run)] == [0, 1, 2, 3, 4]
    assert r1ray("verify", run).returncode == 0


def test_a_run_goes_on_with_another_number_of_learner_ranks(run: Path) -> None:
    begun = [row["step"] for row in read_metrics(run)]
    steps = len(begun) + 2
    ranks = ("learner.ranks=2", "learner.zero_stage=2")
    done = r1ray("train", "--resume", run, f"run.steps={steps}", *ranks, "--profile", "1")
    assert done.returncode == 0, done.stderr + done.stdout
    assert [row["step"] for row in read_metrics(run)] == list(range(steps))
    started = [e for e in read_events(run) if e["kind"] == "learner_started"]
    assert started[-1]["policy_version"] == len(begun)  # from the checkpoint of one rank
    assert list(started[0]["pids"]) == ["learner-0"]
    assert list(started[-1]["pids"]) == ["learner-0", "learner-1"]
    assert r1ray("verify", run).returncode == 0
    assert_profiled(run / "profile", steps - 1, done.stdout)


def assert_profiled(profile: Path, step: int, terminal: str) -> None:
    """The last step was profiled, on two ranks."""
    table = (profile / "step.md").read_text()
    assert f"mean of step {step}, under the profiler" in table
    for part in ("wait for groups", "- forward and loss", "- backward", "- optimizer", "weight sync"):
        assert f"| {part} |" in table
    assert "Rollout workers, meanwhile: generate" in table
    assert "| - backward |" in terminal
    for rank in (0, 1):
        trace = json.loads((profile / f"learner-{rank}.json").read_text())
        assert {"backward", "aten::mm"} <= {event["name"] for event in trace["traceEvents"]}
    calls = json.loads((profile / "ray.json").read_text())
    assert any("train_step" in event["name"] for event in calls)


@pytest.mark.parametrize("kind", ["qwen3_moe", "deepseek_v3"])
def test_two_rollout_workers_and_two_learner_ranks_train_a_mixture(kind: str, tmp_path: Path) -> None:
    model, run = write_model(random_experts(kind, 1), tmp_path / "model"), tmp_path / "run"
    experts = ("learner.zero_stage=2", "learner.expert_parallel=2", "algorithm.routing=replay", "sync.encoding=delta")
    done = train(run, model, "rollout.workers=2", "learner.ranks=2", "run.steps=2", *experts)
    assert done.returncode == 0, done.stderr + done.stdout
    first, second = read_metrics(run)
    assert first["mismatch/max"] < 1e-4
    assert first["mismatch/routing"] == 0.0
    assert second["train/grad_norm"] > 0
    assert r1ray("verify", run).returncode == 0


@pytest.mark.parametrize("change", ["ray.address=127.0.0.1:1", "model.path=/nowhere", "rollout.group_siz=4"])
def test_what_cannot_run_is_refused_before_anything_is_written(model: Path, tmp_path: Path, change: str) -> None:
    done = train(tmp_path / "run", model, change)
    assert done.returncode == 2
    assert change.partition("=")[0] in done.stderr
    assert not (tmp_path / "run").exists()
