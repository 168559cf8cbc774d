"""How long a run takes to start, and a lost rollout worker to be replaced.

    python -m benchmarks.startup [--write]

    checked       from the command until all checks are done
    connected     until Ray runs
    worker ready  until the rollout worker has loaded the model
    first token   until its first prompt is in the engine; the token comes one engine step later
    first step    until the learner has trained the first step
    command       until the command of a run of one step has ended

    replaced        from SIGKILL of the rollout worker until the next one has loaded the model
    generating      until its first prompt is in the engine: it has received the policy before

The run is the embedded default without evaluations, its model built before. `import vLLM` is the time of a process that
does nothing else, to which the others are compared: it says how fast the machine is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks import measure
from r1ray.codec import unpack_scored
from r1ray.ledger import LedgerReader
from r1ray.preflight.prepare import EMBEDDED_FOLDER
from r1ray.run.folder import RunFolder
from r1ray.run.metrics import read_events, read_metrics
from r1ray.types import QUEUED_S
from r1ray.util.vllm_environment import CPU_ENVIRONMENT

ROOT = Path(__file__).parents[1]
LIMIT_S = 300.0
POLL_S = 0.1
KILLED_AFTER = 2
"""Steps before the rollout worker is killed."""


def import_vllm() -> float:
    """Seconds of a process that imports vLLM and ends."""
    began = time.time()
    environment = {**os.environ, **CPU_ENVIRONMENT}
    subprocess.run([sys.executable, "-c", "import vllm"], env=environment, check=True, timeout=LIMIT_S)
    return time.time() - began


def start(run: Path, steps: int) -> subprocess.Popen[bytes]:
    """Start the embedded default without evaluations."""
    settings = [f"run.dir={run}", f"run.steps={steps}", "evaluation.every_steps=0", "checkpoint.every_steps=1000"]
    command = [sys.executable, "-m", "r1ray", "train", "conf/tiny.yaml", *settings]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)


def begun_groups(run: Path) -> list[tuple[str, float]]:
    """(worker, when the prompt was in its engine) of every group that is stored, in seconds since the epoch."""
    with closing(LedgerReader.open(RunFolder.open(run).ledger)) as ledger:
        records = [record for record in ledger.groups() if record.has_payload]
        payloads = ledger.payloads([record.group_id for record in records])
    queued = [unpack_scored(payload).rollout.timings[QUEUED_S] for payload in payloads]
    return [(r.worker_id, r.leased_at + waited) for r, waited in zip(records, queued, strict=True)]


def measure_start(run: Path) -> dict[str, float]:
    """The phases of one start, in seconds since the command."""
    began = time.time()
    code = start(run, 1).wait(LIMIT_S)
    ended = time.time()
    if code != 0:
        raise SystemExit(f"the run in {run} ended with code {code}: see its logs")
    at = {event["kind"]: event["time"] for event in reversed(read_events(run))}  # the first of each kind
    moments = {
        "checked": at["started"],
        "connected": at["connected"],
        "worker ready": at["worker_ready"],
        "first token": min(moment for _, moment in begun_groups(run)),
        "first step": read_metrics(run)[0]["time"],
        "command": ended,
    }
    return {name: moment - began for name, moment in moments.items()}


def measure_replacement(run: Path) -> dict[str, float]:
    """Seconds from the death of the rollout worker until its replacement is ready, and until it generates."""
    process = start(run, 100_000)
    try:
        wait_until(process, lambda: len(_rows(run)) >= KILLED_AFTER)
        first = _ready(run)[0]
        os.kill(first["pid"], signal.SIGKILL)
        killed = time.time()
        wait_until(process, lambda: len(_ready(run)) > 1)
        second = _ready(run)[1]
        wait_until(process, lambda: _first_of(run, second["worker"]) is not None)
        generating = _first_of(run, second["worker"])
        assert generating is not None
        return {"replaced": second["time"] - killed, "generating": generating - killed}
    finally:
        process.terminate()
        process.wait(LIMIT_S)


def _ready(run: Path) -> list[dict[str, Any]]:
    return [event for event in read_events(run) if event["kind"] == "worker_ready"]


def _first_of(run: Path, worker: str) -> float | None:
    return min((moment for by, moment in begun_groups(run) if by == worker), default=None)


def wait_until(process: subprocess.Popen[bytes], reached: Any) -> None:
    """Wait until `reached()`. Raises SystemExit if the run ends or LIMIT_S pass before."""
    until = time.monotonic() + LIMIT_S
    while not reached():
        if process.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"the run ended with code {process.poll()}, or did not get there in {LIMIT_S:g} s")
        time.sleep(POLL_S)


def _rows(run: Path) -> Sequence[Mapping[str, Any]]:
    with contextlib.suppress(FileNotFoundError):
        return read_metrics(run)
    return []


def main() -> None:
    """Measure, print the table, and store it if that was requested."""
    arguments = measure.parser(__doc__, repeats=3).parse_args()
    if not (ROOT / EMBEDDED_FOLDER).is_dir():
        raise SystemExit(f"the embedded model is not built yet ({EMBEDDED_FOLDER}): make run")
    session = measure.start("startup", arguments)
    imports: list[float] = []
    starts: list[dict[str, float]] = []
    replacements: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="startup-") as folder:
        for repeat in range(-1, session.repeats):  # the first round fills the page cache
            run = Path(folder) / f"{repeat}"
            found = import_vllm(), measure_start(run), measure_replacement(run.with_suffix(".killed"))
            if repeat >= 0:
                imports.append(found[0])
                starts.append(found[1])
                replacements.append(found[2])
    seconds = {name: [s[name] for s in rows] for rows in (starts, replacements) for name in rows[0]}
    seconds["import vLLM"] = imports
    shown = {name: measure.summarise(values) for name, values in seconds.items()}
    print(measure.table(("from the command to", "seconds", "least", "most"), [_row(n, s) for n, s in shown.items()]))
    claims = {f"{name} / import vLLM": measure.ratio(seconds[name], imports) for name in ("first step", "replaced")}
    for name, claim in claims.items():
        print(f"{name}: {claim}")
    session.finish({name: summary.to_json() for name, summary in shown.items()}, claims)


def _row(name: str, seconds: measure.Summary) -> tuple[str, float, float, float]:
    return name, statistics.median(seconds.values), min(seconds.values), max(seconds.values)


if __name__ == "__main__":
    main()
