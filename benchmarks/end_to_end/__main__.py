"""Whole trainings: r1ray against TRL's GRPOTrainer with its own generation, by turns, on the same machine.

    python -m benchmarks.end_to_end [--workloads short long real] [--write]          (make bench-end-to-end)

    short   the embedded default (conf/tiny.yaml), completions of about 30 tokens
    long    a model with random weights, up to 1,024 tokens: many completions are short, a few very long
    real    SmolLM2-135M-Instruct writes to order (conf/models/smollm2-135m.yaml, without its KL penalty)

    tokens/s        completion tokens trained, without the steps at the start, and at r1ray's end
    start-up        from the command to the end of the first step
    to 80%, 90%     from the end of the first step until the mean accuracy of three steps is that high; no prompt comes
                    twice, so a batch that has not been trained yet is held out

Both have the model, prompts, rewards, sizes and optimiser of one configuration (`benchmarks/end_to_end/trl.py`).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import measure
from r1ray.config.load import load_config
from r1ray.preflight.prepare import EMBEDDED_FOLDER
from r1ray.run.folder import RunFolder
from r1ray.run.metrics import read_metrics

ROOT = Path(__file__).parents[2]
TRL = ROOT / ".venv" / "trl"
SMOOTH = 3
"""Steps over which accuracy is averaged."""
LEVELS = (0.8, 0.9)
LIMIT_S = 3600.0
"""Deadline of one training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What both programs train."""

    overlay: str
    settings: tuple[str, ...]
    trl_steps: int  # fewer than `run.steps` where they take minutes: they are alike
    sequences: int  # at most, in one backward pass of TRL; r1ray packs `learner.micro_batch_tokens`
    model: str = str(EMBEDDED_FOLDER)
    evaluation: str = ""  # by r1ray before the first step: none, or what a configuration cannot do without


WORKLOADS = {
    "short": Workload(overlay="conf/tiny.yaml", settings=("run.steps=40",), trl_steps=40, sequences=128),
    "long": Workload(
        overlay="conf/tiny.yaml",
        settings=(
            "run.steps=8",
            "model.max_length=1088",
            "rollout.max_new_tokens=1024",
            "rollout.engine.kv_cache_gib=0.5",
            "learner.groups_per_step=16",
            "rollout.groups_in_engine=16",
            "rollout.workers=2",  # the learner has little to do: most groups have no advantage
            "learner.optimizer.lr=1e-6",
        ),
        trl_steps=3,
        sequences=128,
    ),
    "real": Workload(
        overlay="conf/models/smollm2-135m.yaml",
        settings=("run.steps=5", "algorithm.kl_coefficient=0"),
        evaluation="{name: heldout, path: writing, split: heldout, limit: 1, rewards: [accuracy, fluency]}",
        trl_steps=3,
        sequences=16,
        model="models/smollm2-135m",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One training, step by step. Producers: `by_r1ray`, `by_trl`."""

    began: float  # when the command was given, in seconds since the epoch
    ends: tuple[float, ...]  # of the steps
    tokens: tuple[int, ...]  # of completions
    accuracy: tuple[float, ...]
    counted: slice  # of `ends`: between the first and the last of them tokens count

    @property
    def tokens_s(self) -> float:
        """Completion tokens trained a second."""
        ends = self.ends[self.counted]
        return sum(self.tokens[self.counted][1:]) / (ends[-1] - ends[0])

    @property
    def start_s(self) -> float:
        """From the command to the end of the first step."""
        return self.ends[0] - self.began

    def seconds_to(self, level: float) -> float | None:
        """From the end of the first step until the accuracy is at least `level`; None if it never was."""
        for i in range(SMOOTH, len(self.ends) + 1):
            if statistics.fmean(self.accuracy[i - SMOOTH : i]) >= level:
                return self.ends[i - 1] - self.ends[0]
        return None


def by_r1ray(workload: Workload, run: Path, settings: Sequence[str]) -> Training:
    """Train with this system into the folder `run`."""
    began = time.time()
    command = [sys.executable, "-m", "r1ray", "train", workload.overlay, f"run.dir={run}"]
    command += [f"data.evaluation=[{workload.evaluation}]", "evaluation.every_steps=0", "checkpoint.every_steps=1000"]
    command += [*workload.settings, *settings]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=LIMIT_S)
    config = load_config([str(RunFolder.open(run).config)]).config
    completions = config.learner.groups_per_step * config.rollout.group_size
    rows = read_metrics(run)
    return Training(
        began=began,
        ends=tuple(row["time"] for row in rows),
        tokens=tuple(round(row["length/mean"] * completions) for row in rows),
        accuracy=tuple(row["reward/part/accuracy"] for row in rows),
        counted=slice(1, -1),  # at the end no generation for later steps delays that for the last one
    )


def by_trl(workload: Workload, run: Path, out: Path) -> Training:
    """Train with TRL what the run of r1ray in `run` trained. Its steps end when the next generation is scored."""
    path = os.pathsep.join([str(TRL), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "benchmarks.end_to_end.trl", str(RunFolder.open(run).config)]
    command += [str(workload.sequences), str(workload.trl_steps), str(out)]
    began = time.time()
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=LIMIT_S)
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return Training(
        began=began,
        ends=tuple(line["time"] for line in lines),
        tokens=tuple(line["tokens"] for line in lines),
        accuracy=tuple(line["accuracy"] for line in lines),
        counted=slice(0, None),
    )


def random_model(folder: Path) -> None:
    """The embedded model's sizes and tokenizer, with random weights and a longer context."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed

    config = AutoConfig.from_pretrained(EMBEDDED_FOLDER, max_position_embeddings=2048)
    set_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(EMBEDDED_FOLDER).save_pretrained(folder)


def measure_workload(name: str, settings: Sequence[str], repeats: int, folder: Path) -> dict[str, list[Training]]:
    """Both trainings by turns; the seed is that of the repetition, the same for both."""
    workload = WORKLOADS[name]
    found: dict[str, list[Training]] = {"r1ray": [], "TRL": []}
    for repeat in range(repeats):
        run, out = folder / f"{name}-{repeat}", folder / f"{name}-{repeat}.jsonl"
        for program, trainings in found.items():
            if program == "r1ray":
                training = by_r1ray(workload, run, [*settings, f"run.seed={repeat}"])
            else:
                training = by_trl(workload, run, out)
            trainings.append(training)
            speed, start = training.tokens_s, training.start_s
            print(f"{name} {repeat} {program}: {speed:.0f} tokens/s, start {start:.1f} s", flush=True)
    return found


def summary(trainings: Sequence[Training]) -> dict[str, Any]:
    """Medians of one program's trainings; a level that was not always reached is None."""
    levels = {f"to_{level}_s": [t.seconds_to(level) for t in trainings] for level in LEVELS}
    return {
        "tokens_per_s": measure.summarise([t.tokens_s for t in trainings]).to_json(),
        "start_s": measure.summarise([t.start_s for t in trainings]).to_json(),
        "completion_tokens": round(statistics.fmean(sum(t.tokens) / len(t.tokens) for t in trainings)),
        "last_accuracy": [round(statistics.fmean(t.accuracy[-SMOOTH:]), 3) for t in trainings],
    } | {key: None if None in values else measure.summarise(values).to_json() for key, values in levels.items()}  # type: ignore[arg-type]


def main() -> None:
    """Measure the workloads, one after the other."""
    parser = measure.parser(__doc__, repeats=5)
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=["short"])
    arguments = parser.parse_args()
    if not (TRL / "trl").is_dir():
        raise SystemExit("TRL is not installed beside the environment: make .venv/trl")
    for model in {WORKLOADS[name].model for name in arguments.workloads}:  # a start would build it, and TRL's would not
        if not (ROOT / model).is_dir():
            raise SystemExit(f"{model} is missing: make run builds the embedded model, make run-smollm SmolLM2")
    for name in arguments.workloads:
        compare(name, measure.start(f"end_to_end_{name}", arguments))


def compare(name: str, session: measure.Session) -> None:
    """Measure one workload, print its table, and store it if that was requested."""
    with tempfile.TemporaryDirectory(prefix="end-to-end-") as folder:
        settings = []
        if name == "long":
            random_model(Path(folder) / "model")
            settings = [f"model.path={folder}/model"]
        found = measure_workload(name, settings, session.repeats, Path(folder))
    result = {program: summary(trainings) for program, trainings in found.items()}
    rows = [(program, *_row(result[program])) for program in found]
    print(measure.table(("program", "tokens/s", "start-up s", "to 80% s", "to 90% s"), rows))
    ours, theirs = ([t.tokens_s for t in found[program]] for program in ("r1ray", "TRL"))
    claim = measure.ratio(ours, theirs)
    print(f"{name}: tokens/s, r1ray/TRL: {claim}")
    session.finish(result, {"tokens/s, r1ray/TRL": claim})


def _row(found: dict[str, Any]) -> tuple[object, ...]:
    levels = (found[f"to_{level}_s"] for level in LEVELS)
    times = ("not reached" if level is None else f"{level['median']:.1f}" for level in levels)
    return round(found["tokens_per_s"]["median"]), f"{found['start_s']['median']:.1f}", *times


if __name__ == "__main__":
    main()
