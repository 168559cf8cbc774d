"""Scorers and samples for the tests of rewards."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.groups import make_completion, make_group, make_prompt
from r1ray.config.schema import RewardConfig, RewardWorkerConfig
from r1ray.rewards.base import Sample
from r1ray.rewards.execution.crossing import Peer
from r1ray.rewards.execution.guest import Candidate, Judge
from r1ray.rewards.scorer import Scorer
from r1ray.types import RolloutGroup, Score

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def scorer(*rewards: RewardConfig, timeout_s: float = 10.0, **more: Any) -> Iterator[Scorer]:
    made = Scorer(rewards, RewardWorkerConfig(timeout_s=timeout_s), **more)
    try:
        yield made
    finally:
        made.close()


def reward(name: str, weight: float = 1.0, **params: Any) -> RewardConfig:
    return RewardConfig(name=name, weight=weight, params=params)


def judge(scorer: Scorer, response: str, answer: Any = None, **fields: Any) -> Score:
    return scorer.begin(Sample(response=response, answer=answer, **fields)).result().score


def group(texts: list[str], answer: Any, task: str = "maths", meta: dict[str, Any] | None = None) -> RolloutGroup:
    messages = ({"role": "user", "content": "How many are there?"},)
    prompt = make_prompt(0, answer=answer, task=task, messages=messages, meta=meta)
    return make_group("0-0", prompt, [make_completion(5, text=text) for text in texts], max_new_tokens=10)


def gsm8k() -> list[str]:
    """Solutions that end with `#### answer`: all of GSM8K where it lies at hand, else a few in its form."""
    folder = Path(os.environ.get("R1RAY_GSM8K", ROOT.parent / "shared" / "data" / "gsm8k"))
    files = sorted(folder.glob("*.jsonl"))
    solutions = [json.loads(line)["answer"] for file in files for line in file.read_text().splitlines()]
    return solutions or [
        f"First {n} and {n}.\nTogether <<{n}+{n}={2 * n}>>{2 * n:,}.\n#### {2 * n:,}" for n in range(0, 9000, 7)
    ]


@contextmanager
def alarm_given_back() -> Iterator[None]:
    """A judge takes over the alarm of its process, here the test's own timeout (pytest-timeout);
    restore it afterwards.
    """
    handler = signal.getsignal(signal.SIGALRM)
    left_s, interval_s = signal.setitimer(signal.ITIMER_REAL, 0)
    began = time.monotonic()
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, handler)
        if left_s:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, left_s - (time.monotonic() - began)), interval_s)


def judged(code: str, test_s: float = 5.0, **tests: Any) -> list[tuple[int, str | None]]:
    """The reports on a program, both sides in threads of this process."""
    ours, theirs = socket.socketpair()
    unsent = contextlib.suppress(BrokenPipeError)  # no client waits for this reply any more
    with ours, theirs, unsent, ours.makefile("rw") as left, unsent, theirs.makefile("rw") as right:
        closed = threading.Event()
        candidate = Candidate(right)
        candidate._module.__dict__.update(closed=closed, leave=lambda: theirs.shutdown(socket.SHUT_RDWR))

        def serve() -> None:
            with contextlib.suppress(OSError):  # it has left, or its judge has: its process would end
                candidate.serve()

        thread = threading.Thread(target=serve)
        thread.start()
        out = io.StringIO()
        whole = {"setup": "", "asserts": [], "calls": [], "names": [], **tests}
        try:
            with alarm_given_back():
                Judge(Peer(left), out, test_s).run(code, whole)
        finally:
            closed.set()
            with contextlib.suppress(OSError):  # the candidate has left
                ours.shutdown(socket.SHUT_RDWR)
            thread.join(10)
    ready, *reports = map(json.loads, out.getvalue().splitlines())
    assert ready == {"ready": True}
    return [(r["test"], r["why"]) for r in reports]


def left_behind(marker: str) -> list[psutil.Process]:
    """The living processes that have the marker in their command lines; dead ones have none."""
    processes = psutil.process_iter(["cmdline"])
    return [p for p in processes if any(marker in argument for argument in p.info["cmdline"] or ())]


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
