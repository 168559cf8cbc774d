"""Write a synthetic run folder with plausible numbers, for tests of report, figures and inspect."""

import json
import math
import random
from dataclasses import asdict
from pathlib import Path

from r1ray.run.folder import FORMAT
from r1ray.run.identity import RunIdentity
from r1ray.run.metrics import MetricsWriter

CONFIG = """\
run:
  name: bus
  steps: 40
model:
  path: tiny
data:
  evaluation:
    - {name: bus, kind: synthetic, path: bus}
    - {name: bus-long, kind: synthetic, path: bus}
rollout:
  group_size: 8
learner:
  groups_per_step: 32
algorithm:
  loss: grpo
"""

VERSIONS = {"python": "3.11.2", "torch": "2.13.0", "vllm": "0.32.0", "ray": "2.60.0", "deepspeed": "0.19.8"}


def text_of(rng: random.Random, progress: float) -> tuple[str, bool]:
    """Return a completion of the bus problem 7 + 5 - 3 + 8, and whether it is right."""
    if rng.random() > progress:
        return f"{rng.randint(9, 25)} people are on it.", False
    careful = "A+5: 11, wait, let me check. 7+5=12" if rng.random() < 0.25 else "A+5: 12"
    return f"<think>7 {careful}\nB-3: 9\nC+8: 17</think><answer>17</answer>", True


class Clock:
    """Seconds since the epoch, set by hand."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def write_run(run_dir: Path, *, steps: int = 40, evaluate_every: int = 10, killed_at: int | None = None) -> Path:
    """Write a run that learns.

    With `killed_at` it was killed after that step and resumed 300 s later, two steps back.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    clock = Clock()
    identity = RunIdentity(
        vocab_hash="9f2c4e1d77aa",
        model_hash="c07d5a3be911",
        config_hash="51ee0b8c2d10",
        run_id="bus-1a2b3c",
        created=clock(),
        r1ray="0.1.0",
    )
    (run_dir / "run.json").write_text(json.dumps({"format": FORMAT, **asdict(identity)}))
    (run_dir / "config.yaml").write_text(CONFIG)
    with MetricsWriter(run_dir, tensorboard=False, clock=clock) as w:
        w.event("started", resume=False, pid=4242, versions=VERSIONS, machine={"cores": 2, "memory_gib": 15.6})
        clock.now += 38.0
        if evaluate_every:
            _evaluate(w, 0, 0.0)
        step = 0
        while step < steps:
            clock.now += 2.5
            _step(w, step, rng)
            if killed_at == step:
                killed_at = None
                w.event("worker_lost", worker="rollout-0", reason="rollout-0 died", state="healthy")
                clock.now += 300.0
                w.event("started", resume=True, pid=4343, versions=VERSIONS)
                w.rewind(step - 2)
                step -= 3
            step += 1
            if evaluate_every and step % evaluate_every == 0:
                _evaluate(w, step, 1 - math.exp(-step / 8))
        if steps:
            w.event("checkpoint", policy_version=steps)
            w.event("finished")
    state = "finished" if steps else "failed"
    status = {"state": state, "step": steps, "steps": steps, "host": "localhost"}
    (run_dir / "status.json").write_text(json.dumps(status))
    return run_dir


def _step(w: MetricsWriter, step: int, rng: random.Random) -> None:
    progress = 1 - math.exp(-(step + 1) / 8)
    accuracy = 0.15 + 0.73 * progress + rng.gauss(0, 0.02)
    format_ = 0.69 + 0.3 * progress + rng.gauss(0, 0.008)
    length = 17 + 14.5 * progress + rng.gauss(0, 0.5)
    w.step(
        step,
        {
            "reward/mean": accuracy + 0.5 * format_,
            "reward/std": 0.6 - 0.3 * progress,
            "reward/part/accuracy": accuracy,
            "reward/part/format": format_,
            "length/mean": length,
            "length/max": length * 2 + rng.randint(0, 30),
            "length/truncated": max(0.0, 0.03 - 0.03 * progress),
            "length/empty": 0.0,
            "train/loss": rng.gauss(0, 0.02),
            "train/grad_norm": math.nan if step == 7 else 0.4 + 0.5 * (1 - progress) + abs(rng.gauss(0, 0.08)),
            "train/lr": 5e-4,
            "train/entropy": 0.9 - 0.65 * progress + rng.gauss(0, 0.02),
            "train/kl": 0.0,
            "train/clip_fraction": 0.04 + 0.06 * (1 - progress) + abs(rng.gauss(0, 0.01)),
            "train/ratio_mean": 1 + rng.gauss(0, 0.004),
            "train/skipped": 1.0 if step == 7 else 0.0,
            "staleness/mean": min(1.0, step) * 0.92,
            "staleness/max": min(1, step),
            "staleness/log_ratio": 0.05 * (1 - progress) + 0.02 + abs(rng.gauss(0, 0.004)),
            "mismatch/max": 2e-4 + abs(rng.gauss(0, 5e-5)),
            "mismatch/mean": 1e-5,
            "mismatch/tokens": 900,
            "rollout/tokens_per_s": 5400 + rng.gauss(0, 200),
            "learner/tokens_per_s": 5900 + rng.gauss(0, 300),
            "rollout/idle_share": 0.06 + abs(rng.gauss(0, 0.02)),
            "learner/idle_share": 0.35 + rng.gauss(0, 0.04),
            "learner/step_s": 1.3 + rng.gauss(0, 0.06),
            "batch/wait_s": 0.8 + abs(rng.gauss(0, 0.1)),
            "batch/tokens": 256 * (length + 18),
            "reward_worker/seconds": 0.004,
            "queue/ready": rng.randint(10, 40),
            "queue/leased": 64,
            "queue/dropped": step // 12,
            "queue/reissued": step // 12,
            "sync/seconds": 0.13 + abs(rng.gauss(0, 0.02)),
            "sync/apply_s": 0.02,
            "sync/digest_s": 0.03,
            "sync/recomputed_tokens": 0.0,
            "sync/workers": 1,
        },
    )
    for k in range(4):
        text, right = text_of(rng, progress)
        w.transcript(
            {
                "step": step,
                "prompt_id": f"bus-{step}-{k}",
                "prompt": "User: bus 7 A+5 B-3 C+8\nAssistant:",
                "text": text,
                "reward": 1.5 if right else 0.0,
                "parts": {"accuracy": float(right), "format": float(right)},
                "finish_reason": "stop",
                "tokens": len(text) // 2,
            }
        )


def _evaluate(w: MetricsWriter, step: int, progress: float) -> None:
    for source, low, high in (("bus", 0.15, 0.87), ("bus-long", 0.13, 0.66)):
        w.evaluation(
            {
                "step": step,
                "source": source,
                "problems": 200,
                "samples": 4,
                "accuracy": low + (high - low) * progress,
                "accuracy_se": 0.02,
                "consensus": min(1.0, low + (high + 0.06 - low) * progress),
                "greedy_accuracy": min(1.0, 0.05 + 1.1 * (high - low) * 1.2 * progress),
                "format": 0.69 + 0.3 * progress,
                "length": 17 + 14 * progress,
                "truncated": 0.0,
                "versions": [step],
            }
        )
