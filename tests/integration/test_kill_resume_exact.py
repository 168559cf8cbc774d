"""A deterministic run, killed in the middle of a step and resumed, ends bit-identical to one that never stopped."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from benchmarks.chaos.campaign import verify
from benchmarks.chaos.observe import ObservedRun
from r1ray.run.metrics import read_events, read_metrics
from tests.integration.processes import finish, start_r1ray, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
HERE = Path(__file__).parent
SETTINGS = (
    "run.deterministic=true",
    "queue.max_staleness=0",
    "run.steps=5",
    "evaluation.every_steps=1",  # evaluations share the engine with training: they must not change it
    "rollout.max_new_tokens=24",
)


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return start_r1ray("train", *arguments)


def at_moment(
    run: Path, model: Path, moment: Callable[[ObservedRun], bool]
) -> tuple[subprocess.Popen[str], ObservedRun]:
    """A run that has come to the moment at which something is to be killed."""
    seen = ObservedRun(run)
    driver = start(HERE / "loop.yaml", f"run.dir={run}", f"model.path={model}", *SETTINGS)
    wait_for(driver, "the moment to kill", lambda: moment(seen))
    return driver, seen


@pytest.fixture(scope="module")
def undisturbed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    finish(start(HERE / "loop.yaml", f"run.dir={run}", f"model.path={model}", *SETTINGS))
    # Bits that never change would be equal anyway.
    assert all(row["train/grad_norm"] > 0 for row in read_metrics(run))
    return run


def in_generation_of_step_3(seen: ObservedRun) -> bool:
    return seen.steps_with_batch() == 3 and seen.leased() > 0


def in_training_of_step_3(seen: ObservedRun) -> bool:
    return seen.steps_with_batch() == 4


@pytest.mark.parametrize("moment", [in_generation_of_step_3, in_training_of_step_3])
def test_a_killed_run_ends_with_the_same_bits(
    undisturbed: Path, model: Path, tmp_path: Path, moment: Callable[[ObservedRun], bool]
) -> None:
    run = tmp_path / "killed"
    driver, _ = at_moment(run, model, moment)
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=30)
    assert not (run / "checkpoints" / "step_000005").exists()
    finish(start("--resume", run))

    # Weights and Adam moments: the hash of their file; of the gradients' norms, every digit.
    assert state_hash(run) == state_hash(undisturbed)
    assert weights(run) == weights(undisturbed)
    assert gradients(run) == gradients(undisturbed)
    assert verify(run) == {"exit_code": 0, "violations": []}


@pytest.mark.parametrize("moment", [in_generation_of_step_3, in_training_of_step_3])
def test_a_run_whose_learner_is_killed_ends_with_the_same_bits(
    undisturbed: Path, model: Path, tmp_path: Path, moment: Callable[[ObservedRun], bool]
) -> None:
    run = tmp_path / "killed"
    driver, seen = at_moment(run, model, moment)
    (started,) = seen.events("learner_started")
    psutil.Process(started["pids"]["learner-0"]).kill()
    finish(driver)

    assert len(seen.events("learner_lost")) == 1
    assert state_hash(run) == state_hash(undisturbed)
    assert weights(run) == weights(undisturbed)
    assert gradients(run) == gradients(undisturbed)
    assert verify(run) == {"exit_code": 0, "violations": []}


def test_a_torn_checkpoint_is_named_passed_over_and_written_again(undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "torn"
    shutil.copytree(undisturbed, run)
    with (run / "checkpoints" / "step_000005" / "state-00001.safetensors").open("r+b") as state:
        state.truncate(1000)
    finish(start("--resume", run))
    (warning,) = [e["message"] for e in read_events(run) if e["kind"] == "checkpoint_skipped"]
    assert warning == "checkpoint step_000005 skipped: state-00001.safetensors does not match the manifest"
    assert state_hash(run) == state_hash(undisturbed)
    assert verify(run) == {"exit_code": 0, "violations": []}


def state_hash(run: Path) -> str:
    manifest = json.loads((run / "checkpoints" / "step_000005" / "manifest.json").read_text())
    digest: str = manifest["files"]["state-00001.safetensors"]["sha256"]
    return digest


def gradients(run: Path) -> list[float]:
    return [row["train/grad_norm"] for row in read_metrics(run)]


def weights(run: Path) -> bytes:
    return (run / "final" / "model-00001.safetensors").read_bytes()
