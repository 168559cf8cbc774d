"""Write a synthetic recipe folder with plausible numbers: all stages of R1 on the bilingual bus problem."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from r1ray.curation.mix import Domain, make_report
from r1ray.evaluation.figures import figures
from r1ray.evaluation.published import published
from r1ray.run.metrics import MetricsWriter
from r1ray.sampling.store import Part, SampleRow, write_shard
from tests.synthetic_run import write_run

BENCHMARKS = ("bus", "bus-long")

STAGES: tuple[tuple[str, str, tuple[str, ...], float, str], ...] = (
    ("base", "tiny", (), 61.0, "The bilingual base model."),
    ("r1_zero", "rl", ("@base",), 210.0, "Reinforcement learning from the base model."),
    ("cold_start", "sample", ("@r1_zero",), 38.0, "Correct and readable samples of R1-Zero."),
    ("cold_start_sft", "sft", ("@base", "@cold_start"), 22.0, "The base model learns to be readable."),
    ("reasoning_rl", "rl", ("@cold_start_sft",), 160.0, "Reinforcement learning with the language reward."),
    ("rejection", "sample", ("@reasoning_rl",), 44.0, "What the large model gets right, with general data."),
    ("sft", "sft", ("@base", "@rejection"), 41.0, "Supervised fine-tuning on reasoning and general data."),
    ("safety_model", "reward_model", ("@base", "data/safety.jsonl"), 12.0, ""),
    ("rl_all", "rl", ("@sft", "@safety_model"), 130.0, "Reinforcement learning for all scenarios."),
    ("student_base", "tiny", (), 30.0, "A small base model."),
    ("distill", "sft", ("@student_base", "@rejection"), 27.0, "A small model learns from the large one's samples."),
    ("student_rl", "rl", ("@student_base",), 120.0, "The same small model, by reinforcement learning."),
)

DISTILLED: tuple[tuple[str, str, tuple[str, ...], float, str], ...] = (
    ("distill", "sft", ("models/small", "data/samples"), 27.0, "A small base."),
    ("cold_start_sft", "sft", ("models/smaller", "data/samples"), 22.0, "A smaller one."),
    ("sft", "sft", ("models/other", "data/samples"), 41.0, "Another one."),
)
"""Independent students, like those of the recipe `distill`."""

POLICIES = {  # name -> accuracy on the first benchmark, share of words in the target language
    "base": (0.16, 0.55),
    "r1_zero": (0.87, 0.62),
    "cold_start_sft": (0.34, 0.93),
    "reasoning_rl": (0.88, 0.97),
    "sft": (0.71, 0.96),
    "rl_all": (0.89, 0.985),
    "distill": (0.79, 0.96),
    "student_rl": (0.30, 0.60),
}


def write_recipe(folder: Path, *, done: int = 99, problems: int = 24, made: Any = STAGES) -> Path:
    """Write the folder of a recipe with the stages `made`, of which the first `done` have finished."""
    rng = random.Random(0)
    stages: list[dict[str, Any]] = []
    for i, (name, kind, inputs, seconds, doc) in enumerate(made):
        stages.append(_entry(folder, name, kind, inputs, seconds if i < done else None, doc))
        if i < done:
            _write_stage(folder / name, name, kind, inputs, seconds, rng)
        if name in POLICIES:
            took = 31.0 if i < done else None
            stages.append(_entry(folder, f"eval_{name}", "eval", (f"@{name}",), took, f"Benchmarks of {name}."))
            if i < done:
                _write_evaluation(folder / f"eval_{name}", *POLICIES[name], problems, rng)
    record = {
        "format": 2,
        "name": "r1",
        "doc": "All stages of DeepSeek-R1, on a laptop.",
        "dir": str(folder),
        "seed": 0,
        "files": ["conf/recipes/r1.yaml", "conf/recipes/r1.tiny.yaml"],
        "stages": stages,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.json").write_text(json.dumps(record))
    return folder


def _entry(
    folder: Path, name: str, kind: str, inputs: tuple[str, ...], seconds: float | None, doc: str
) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "doc": doc,
        "inputs": list(inputs),
        "state": "pending" if seconds is None else "done",
        "seconds": seconds,
        "output": str(folder / name / "final"),
        "published": "101,000 H800 hours (arXiv 2501.12948v2, table 7)" if name == "r1_zero" else "",
    }


def _write_stage(
    folder: Path, name: str, kind: str, inputs: tuple[str, ...], seconds: float, rng: random.Random
) -> None:
    folder.mkdir(parents=True)
    if kind == "rl":
        write_run(folder, steps=40 if name == "r1_zero" else 24, evaluate_every=8)
    if kind == "sft":
        _write_sft(folder)
    if kind == "sample":
        _write_mix(folder)
    record = {
        "seed": 0,
        "inputs": {i: {"path": i, "digest": f"blake2b:{rng.getrandbits(128):032x}"} for i in inputs},
        "output": {"path": str(folder), "digest": f"blake2b:{rng.getrandbits(128):032x}"},
        "config": {"run": {"seed": 0, "dir": str(folder)}},
        "code": {"r1ray": "0.1.0", "python": "3.11.2", "torch": "2.13.0"},
        "started": 1_800_000_000.0,
        "seconds": seconds,
        "attempts": 1,
    }
    (folder / "lineage.json").write_text(json.dumps(record))


def _write_sft(folder: Path) -> None:
    write_run(folder, steps=0, evaluate_every=0)
    with MetricsWriter(folder, tensorboard=False) as w:
        for step in range(20):
            loss = 0.2 + 2.0 / (step + 1)
            w.step(step, {"sft/loss": loss, "sft/token_accuracy": 1 - loss / 3, "batch/tokens": 1900.0})


def _write_mix(folder: Path) -> None:
    domains = {"bus": Domain(prompts=512, samples=2048, correct=1760, judged=2048), "courtesy": Domain()}
    domains["bus"].dropped.update({"incorrect": 288, "language": 402, "duplicate": 310})
    for _ in range(1048):
        domains["bus"].keep(tokens=31, rounds=1)
    for _ in range(200):
        domains["courtesy"].keep(tokens=9, rounds=1)
    report = make_report(domains, ("incorrect", "truncated", "language", "duplicate"))
    (folder / "report.json").write_text(json.dumps(report))


def _write_evaluation(folder: Path, accuracy: float, target: float, problems: int, rng: random.Random) -> None:
    rows = []
    (folder / "samples").mkdir(parents=True)
    for benchmark, share in zip(BENCHMARKS, (accuracy, 0.7 * accuracy), strict=True):
        samples = [_sample(benchmark, i, k, share, target, rng) for i in range(problems) for k in range(4)]
        for start in range(0, problems, 8):
            part = Part(source=benchmark, start=start, stop=start + 8)
            write_shard(folder / "samples", part, [s for s in samples if start <= s.index < start + 8])
        # No figures are published for the tiny task; those of a real benchmark fill the section of the page.
        known = published("aime24") if benchmark == "bus" else []
        rows.append({"benchmark": benchmark, **figures(samples, verifier="exact"), "published": known})
    (folder / "results.json").write_text(json.dumps({"model": "x", "model_hash": "y", "seed": 0, "rows": rows}))


def _sample(source: str, index: int, k: int, accuracy: float, target: float, rng: random.Random) -> SampleRow:
    right = rng.random() < accuracy
    words = " ".join("upon" if rng.random() < target else "上车" for _ in range(8))
    slip = " A+5=11 wait," if rng.random() < 0.2 else ""
    answer = "17" if right else str(rng.randint(9, 12))
    return SampleRow(
        source=source,
        prompt_id=f"{source}-{index}",
        index=index,
        sample=k,
        messages=({"role": "user", "content": "the bus starts with 7 people: A+5 B-3 C+8"},),
        answer="17",
        meta={"target_language": "en"},
        response=f"<think>{words}{slip} A+5=12 B-3=9 C+8={answer}</think><answer>{answer}</answer>",
        tokens=30 + rng.randint(0, 9),
        finish_reason="stop",
        reward=float(right),
        parts={"accuracy": float(right), "format": 1.0},
        error=None,
        answer_text=answer,
    )
