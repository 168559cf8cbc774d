"""A replay on the real learner: killed in the middle and resumed, every recorded group trained once, in its order."""

from __future__ import annotations

import signal
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from benchmarks.chaos.campaign import verify
from benchmarks.chaos.observe import ObservedRun
from r1ray.codec import pack_scored, unpack_scored
from r1ray.launch.training import ledger_settings
from r1ray.ledger import Ledger, LedgerReader
from r1ray.preflight.prepare import Preparation
from r1ray.report import build_report
from r1ray.run.metrics import read_metrics
from r1ray.run.recording import RECORDED
from r1ray.types import Completion, PromptTask, RolloutGroup, Sampling, Score, ScoredGroup, VersionSpan
from tests.integration.models import VOCABULARY, random_model, write_model
from tests.integration.processes import finish, start_r1ray

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
HERE = Path(__file__).parent
STEPS = 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_model(random_model(seed=5), folder)
    return folder


@pytest.fixture(scope="module")
def recorded(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of loop.yaml as its ledger keeps it, with random tokens in the place of vLLM's."""
    run = tmp_path_factory.mktemp("runs") / "recorded"
    preparation = Preparation.new([str(HERE / "loop.yaml")], [f"run.dir={run}", f"model.path={model}"])
    with preparation.folder() as folder:
        settings, rng = ledger_settings(preparation.loaded.config), np.random.default_rng(0)
        with closing(Ledger.create(folder.ledger, settings, run_id=folder.identity().run_id)) as ledger:
            for step in range(STEPS):
                leases = ledger.lease("rollout-0", step, settings.groups_per_step)
                ledger.put_many([group(lease.group_id, lease.index, step, rng) for lease in reversed(leases)])
                assert ledger.take(step) is not None
            ledger.commit(STEPS, f"step_{STEPS:06d}")
    return run


def group(group_id: str, index: int, step: int, rng: np.random.Generator) -> bytes:
    lengths = rng.integers(3, 16, size=4)
    completions = tuple(
        Completion(
            token_ids=rng.integers(0, VOCABULARY, n, dtype=np.int32),
            behavior_logprobs=rng.normal(-5.6, 0.3, n).astype(np.float32),
            text="x",
            finish_reason="stop",
            version_spans=(VersionSpan(version=step, start=0, end=int(n)),),
        )
        for n in lengths
    )
    prompt = PromptTask(
        prompt_id=f"p{index}",
        index=index,
        epoch=0,
        token_ids=rng.integers(0, VOCABULARY, 6, dtype=np.int32),
        messages=({"role": "user", "content": "?"},),
        answer="1",
        task="sums",
    )
    rollout = RolloutGroup(
        group_id=group_id,
        prompt=prompt,
        completions=completions,
        sampling=Sampling(temperature=1.0, max_new_tokens=16),
        worker_id="rollout-0",
        timings={},
    )
    scores = tuple(Score(reward=float(i % 2), parts={"accuracy": float(i % 2), "format": 0.0}) for i in range(4))
    return pack_scored(ScoredGroup(rollout=rollout, scores=scores))


def test_a_replay_that_is_killed_trains_every_group_once(model: Path, recorded: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    seen = ObservedRun(run)
    settings = [f"run.dir={run}", f"model.path={model}", f"run.steps={STEPS}", "algorithm.loss=cispo"]
    settings += ["algorithm.clip_low=1.0", "learner.groups_per_step=4", "checkpoint.every_steps=4"]
    driver = start_r1ray("train", HERE / "loop.yaml", *settings, "--replay", recorded)
    until = time.monotonic() + 240
    while seen.steps_with_batch() < 7:
        assert driver.poll() is None, driver.communicate()[0].decode()
        assert time.monotonic() < until, "step 6 was not reached"
        time.sleep(0.005)
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=30)
    assert not (run / "final").exists()

    resumed = start_r1ray("train", "--resume", run)
    output, _ = resumed.communicate(timeout=400)
    assert resumed.returncode == 0, output.decode()
    assert verify(run) == {"exit_code": 0, "violations": []}
    with closing(LedgerReader.open(run / "ledger.sqlite")) as ledger:
        trained = {r.index: r.group_id for r in ledger.groups(state="trained")}
        payloads = ledger.payloads([trained[index] for index in range(4 * STEPS)])
    origins = [unpack_scored(p).rollout.prompt.meta[RECORDED]["group_id"] for p in payloads]
    assert origins == [f"{4 * step + slot}-1" for step in range(STEPS) for slot in (3, 2, 1, 0)]
    rows = read_metrics(run)
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert all(row["staleness/kl"] >= 0 and row["train/grad_norm"] > 0 for row in rows)
    assert seen.events("worker_started") == []
    assert (run / "final" / "config.json").exists()
    assert "groups of the recorded run" in build_report(run).read_text()


def test_adapters_on_two_ranks_of_a_sequence_group_train_on_recorded_groups_and_are_profiled(
    model: Path, recorded: Path, tmp_path: Path
) -> None:
    """--replay, --profile, learner.sequence_parallel and model.lora, all at once."""
    run = tmp_path / "run"
    settings = [f"run.dir={run}", f"model.path={model}", "run.steps=3", "learner.groups_per_step=4", "learner.ranks=2"]
    settings += ["learner.sequence_parallel=2", "model.lora.rank=4", "checkpoint.every_steps=3"]
    finish(start_r1ray("train", HERE / "loop.yaml", *settings, "--replay", recorded, "--profile", "1"))
    assert verify(run) == {"exit_code": 0, "violations": []}
    rows = read_metrics(run)
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert all(row["train/grad_norm"] > 0 for row in rows)
    assert (run / "final" / "adapter" / "adapter_config.json").exists()
    assert {path.name for path in (run / "profile").iterdir()} == {
        "learner-0.json",
        "learner-1.json",
        "ray.json",
        "step.md",
    }
    assert "forward" in (run / "profile" / "step.md").read_text()
