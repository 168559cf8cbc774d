"""Script that replaces `python -m r1ray` in tests of recipes: `python recipe_stage.py COMMAND ...`.

Each command does three steps and records each in `journal`. Its output depends on its inputs, as
with real stages. The file `faults` injects failures: one line "STAGE STEP KIND" each, used once;
KIND is kill, fail, stop, wait, meet or late.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

STEPS = 3
MEET_S = 20.0
OUTPUTS = {
    "train": "final/w",
    "sft": "final/w",
    "reward-model": "final/w",
    "sample": "dataset/part-0.parquet",
    "eval": "results.json",
}


def value(text: str, key: str) -> str:
    """Return the value of the first line `key: value` of a YAML file."""
    return next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.strip().startswith(f"{key}:"))


def content(path: Path) -> str:
    """Return the text of a file, or of all files of a folder."""
    if path.is_dir():
        return "".join(content(p) for p in sorted(path.iterdir()))
    return path.read_text()


def fault(stage: str, step: int) -> str:
    """Return the kind of failure to inject at this step, once; empty for none."""
    file = Path("faults")
    for line in file.read_text().splitlines() if file.exists() else []:
        name, at, kind = line.split()
        if (name, int(at)) == (stage, step) and not (used := Path(f"fault-{stage}-{step}-{kind}")).exists():
            used.touch()
            return kind
    return ""


def meet(stage: str) -> None:
    """Return once another stage has come here too."""
    Path("met").mkdir(exist_ok=True)
    Path("met", stage).touch()
    until = time.monotonic() + MEET_S
    while len(list(Path("met").iterdir())) < 2:
        if time.monotonic() > until:
            sys.exit(f"{stage} is alone")
        time.sleep(0.01)


def work(stage: str, folder: Path, output: Path, made: str, *, begin: int) -> None:
    """Do the steps from `begin` on, with injected failures, then write `made` to `output`."""
    for step in range(begin, STEPS):
        kind = fault(stage, step)
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "fail":
            print(f"ConfigError: {stage} fails at step {step}", file=sys.stderr)
            sys.exit(3)
        elif kind == "stop":  # like a run that another process stops
            sys.exit(0)
        elif kind == "wait":  # for a signal, like a run that checkpoints and exits
            signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            Path(f"waiting-{stage}").write_text(str(os.getpid()))
            while True:
                time.sleep(60)
        elif kind == "meet":  # with another stage that runs at the same time
            meet(stage)
        with Path("journal").open("a") as journal:
            journal.write(f"{stage} {step}\n")
        (folder / "steps").write_text(str(step + 1))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(made)
    if fault(stage, STEPS) == "late":  # after the output is written, before the recipe records it
        os.kill(os.getpid(), signal.SIGKILL)


def main(words: list[str]) -> None:
    """Run one command, given as the words after `r1ray`."""
    command = words[0]
    if command == "tiny":
        output = Path(words[1])
        if output.exists():
            sys.exit("ConfigError: output exists already")
        made = f"{output.parent.name} {words[words.index('--seed') + 1]} <>"
        work(output.parent.name, output.parent, output / "w", made, begin=0)
        return
    config = Path(next(w for w in words[1:] if w.endswith(".yaml"))).read_text()
    folder = Path(words[words.index("--out") + 1] if "--out" in words else value(config, "dir"))
    if "--resume" in words:
        folder = Path(words[words.index("--resume") + 1])
    elif (folder / "run.json").exists():
        sys.exit("ConfigError: folder contains a run already")
    (folder / "run.json").write_text("{}")
    done = int((folder / "steps").read_text()) if (folder / "steps").exists() else 0
    reads = [Path(line.split("path:", 1)[1].strip()) for line in config.splitlines() if "path:" in line]
    there = "".join(content(p) for p in reads if p.exists())
    made = f"{folder.name} {value(config, 'seed')} <{there}>"
    work(folder.name, folder, folder / OUTPUTS[command], made, begin=done)


if __name__ == "__main__":
    main(sys.argv[1:])
