"""Measure how much throughput is lost when generation and training run concurrently.

    generation alone   vLLM with the run's prompts and final policy, engine kept as full as in the run
    learner alone      the run's own recorded batches, trained again without generation
    together           the run: completion tokens trained per second between two steps, everything included

    python -m benchmarks.overlap [--repeats 5] [--write]

Two figures, medians over repeats: together / min(generation alone, learner alone), and together / what two cores could
give if each side used whatever the other leaves: 2 / (1 / generation alone + 1 / learner alone). All are measured in
turn on the same machine; each process has one thread. `core_scaling` shows whether the machine has two physical cores:
if two hardware threads share one core, no program can run both sides at full speed.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from benchmarks import measure
from r1ray.config.load import load_config
from r1ray.config.schema import Config
from r1ray.ledger import LedgerReader
from r1ray.run.folder import RunFolder
from r1ray.run.metrics import read_metrics
from r1ray.types import BatchManifest, Sampling

ROOT = Path(__file__).resolve().parent.parent
FIRST = 8
"""Earlier steps are ignored: engine and allocators warm up, and responses are still short."""


def together(run: Path, steps: int) -> float:
    """Run training and return the completion tokens per second of steps FIRST + 1 to the last but one."""
    command = [sys.executable, "-m", "r1ray", "train", "conf/tiny.yaml", f"run.dir={run}", f"run.steps={steps}"]
    # Exclude evaluations and checkpoints from the measurement.
    command += ["evaluation.every_steps=0", f"checkpoint.every_steps={steps}"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=900)
    rows = {row["step"]: row for row in read_metrics(run)}
    # Each row is written while the next step trains, so all rows have the same delay.
    seconds: float = rows[steps - 2]["time"] - rows[FIRST]["time"]
    return sum(completion_tokens(run, step) for step in range(FIRST + 1, steps - 1)) / seconds


def completion_tokens(run: Path, step: int) -> int:
    """Return the completion tokens of the batch of a step."""
    return sum(sum(g.completion_tokens) for g in manifest_of(run, step).groups)


def manifest_of(run: Path, step: int) -> BatchManifest:
    """Return the recorded batch of a step."""
    with closing(LedgerReader.open(RunFolder.open(run).ledger)) as ledger:
        return BatchManifest(step=step, groups=tuple(g.summary for g in ledger.groups(step=step) if g.summary))


def learner_alone(run: Path, steps: int) -> float:
    """Return the median completion tokens per second when the run's batches are trained again."""
    from learner.policy import PolicyRank

    config = load_config([str(run / "config.yaml")]).config
    config.learner.ranks = 1
    rates = []
    with closing(LedgerReader.open(RunFolder.open(run).ledger)) as ledger:
        learner = PolicyRank(config=config, rank=0, fetch=ledger.payloads)
        learner.setup("127.0.0.1", free_port())
        for step in range(steps - 1):
            manifest = manifest_of(run, step)
            began = time.perf_counter()
            learner.train_step(manifest)
            seconds = time.perf_counter() - began
            if step > FIRST:
                rates.append(sum(sum(g.completion_tokens) for g in manifest.groups) / seconds)
    return statistics.median(rates)


def generation_alone(run: Path, groups: int = 320) -> float:
    """Return the completion tokens per second of the engine alone, as full as in the run."""
    from actors.engine import VllmEngine
    from r1ray.data.source import PromptSource
    from r1ray.data.tokenizer import load_tokenizer

    config: Config = load_config([str(run / "config.yaml")]).config
    model = str(run / "final")
    engine = VllmEngine(config, model)
    engine.set_version(0)
    prompts = PromptSource(config.data.train, config.data, load_tokenizer(model), config.run.seed)
    rollout = config.rollout
    sampling = Sampling(temperature=rollout.temperature, top_p=rollout.top_p, max_new_tokens=rollout.max_new_tokens)
    submitted = done = tokens = 0
    began = 0.0
    while done < groups:
        while submitted - done < rollout.groups_in_engine and submitted < groups + rollout.groups_in_engine:
            task = prompts.task_at(submitted)
            engine.submit(str(submitted), task.token_ids.tolist(), sampling, rollout.group_size)
            submitted += 1
        for _, completions in engine.step():
            done += 1
            if done == rollout.groups_in_engine:  # the first engine-full is warm-up
                began, tokens = time.perf_counter(), 0
            tokens += sum(len(c.token_ids) for c in completions)
    return tokens / (time.perf_counter() - began)


def free_port() -> int:
    """Return an unused TCP port."""
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def in_child(what: str, run: Path, steps: int) -> float:
    """Run one of the two measurements in a fresh process with the environment of its actor."""
    from r1ray.util.vllm_environment import CPU_ENVIRONMENT

    command = [sys.executable, "-m", "benchmarks.overlap", "--child", what, "--run", str(run), "--steps", str(steps)]
    environment = {**os.environ, **CPU_ENVIRONMENT}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=900
    )
    return float(done.stdout.strip().splitlines()[-1])


SPIN = """
import sys, time, torch
torch.set_num_threads(1)
a, end, n = torch.randn(256, 256), time.perf_counter() + 4, 0
while time.perf_counter() < end:
    a @ a
    n += 1
print(n)
"""


def core_scaling() -> float:
    """Return the speed-up of matrix products by a second process: 2 on two cores, about 1 on one core."""

    def products(processes: int) -> int:
        started = [
            subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE, text=True) for _ in range(processes)
        ]
        return sum(int(p.communicate(timeout=60)[0]) for p in started)

    alone = products(1)
    return products(2) / alone


def one_repetition(steps: int) -> dict[str, float]:
    """Measure everything once: the other two need the run."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        row = {"together": together(run, steps)}
        row["generation_alone"] = in_child("generation", run, steps)
        row["learner_alone"] = in_child("learner", run, steps)
    row["core_scaling"] = core_scaling()
    return row


def main() -> None:
    """Parse the command line, measure, and store the result if requested."""
    parser = measure.parser(__doc__, repeats=5)
    parser.add_argument("--steps", type=int, default=36)
    parser.add_argument("--child", choices=["generation", "learner"])
    parser.add_argument("--run", type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        alone = {"generation": generation_alone, "learner": lambda run: learner_alone(run, arguments.steps)}
        print(alone[arguments.child](arguments.run))
        return
    session = measure.start("overlap", arguments)
    rows = []
    for i in range(session.repeats):
        rows.append(one_repetition(arguments.steps))
        print(f"repeat {i + 1}: " + ", ".join(f"{k} {v:,.2f}" for k, v in rows[-1].items()), flush=True)
    slower = [min(row["generation_alone"], row["learner_alone"]) for row in rows]
    cores = [2 / (1 / row["generation_alone"] + 1 / row["learner_alone"]) for row in rows]
    whole = [row["together"] for row in rows]
    ratios = {
        "together / slower side": measure.ratio(whole, slower),
        "together / two cores": measure.ratio(whole, cores),
    }
    figures = {key: measure.summarise([row[key] for row in rows]) for key in rows[0]}
    print(measure.table(["", "median and range"], [*figures.items(), *ratios.items()]))
    what = "completion tokens per second; two cores = 2 / (1 / generation alone + 1 / learner alone)"
    result = {"what": what, "steps": arguments.steps, **{key: s.to_json() for key, s in figures.items()}}
    session.finish(result, ratios)


if __name__ == "__main__":
    main()
