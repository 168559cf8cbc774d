"""Kill stages or the recipe itself: nothing is lost, and interrupted stages resume."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from r1ray.errors import ConfigError, StageFailed
from tests.unit.recipe_support import RECIPE, STAGES, faults, journal, outputs, run, write_recipe

DEADLINE_S = 120.0


pytestmark = pytest.mark.usefixtures("recipe_folder")


def test_a_killed_stage_resumes_or_starts_again_if_its_kind_cannot() -> None:
    path = write_recipe()
    faults("base 1 kill", "zero 2 kill", "helpful 3 late")
    for at in ("base", "zero", "helpful"):
        with pytest.raises(StageFailed, match=f"{at} was killed by signal 9") as told:
            run(path)
        assert told.value.exit_code == 137
    assert run(path) == 0
    steps = journal()
    assert [s for s in steps if s.startswith("base")] == ["base 0", "base 0", "base 1", "base 2"]
    assert [s for s in steps if s.startswith("zero")] == ["zero 0", "zero 1", "zero 2"]
    assert Path("out/base.1").exists()
    assert [s for s in steps if s.startswith("helpful")] == ["helpful 0", "helpful 1", "helpful 2"]
    assert not Path("out/helpful.1").exists()
    lineage = json.loads(Path("out/zero/lineage.json").read_text())
    assert lineage["attempts"] == 2


def test_a_killed_stage_whose_configuration_changed_is_set_aside() -> None:
    path = write_recipe()
    faults("zero 2 kill")
    with pytest.raises(StageFailed):
        run(path)
    path.write_text(RECIPE.replace("run: {steps: 3}", "run: {steps: 4}"))
    journal()
    assert run(path) == 0
    assert journal()[:3] == ["zero 0", "zero 1", "zero 2"]
    assert Path("out/zero.1/steps").read_text() == "2"


@pytest.mark.parametrize("seed", range(3))
def test_random_kills_repeat_no_step_and_do_not_change_the_outputs(seed: int) -> None:
    path = write_recipe()
    assert run(path) == 0
    quiet = outputs()
    journal()
    chance = random.Random(seed)
    deaths = {(chance.choice(STAGES), chance.randrange(3)) for _ in range(6)}
    faults(*(f"{stage} {step} {'late' if step == 3 else 'kill'}" for stage, step in deaths))
    code = None
    for attempt in range(len(deaths) + 1):
        with contextlib.suppress(StageFailed):
            code = run(path, fresh=attempt == 0)
    assert code == 0
    assert outputs() == quiet
    steps = journal()
    resuming = [s for s in STAGES if s != "base"]  # which starts again
    for stage in resuming:
        assert sorted(s for s in steps if s.split()[0] == stage) == [f"{stage} {i}" for i in range(3)]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_reaches_the_stage_and_the_recipe_shows_how_to_continue(signum: int, code: int) -> None:
    path = write_recipe()
    faults("zero 1 wait")

    def press() -> None:
        wait_for(Path("waiting-zero"))
        os.kill(os.getpid(), signum)

    thread = threading.Thread(target=press)
    thread.start()
    assert run(path) == code
    thread.join()
    assert "Continue with `r1ray recipe small.yaml`" in Path("screen").read_text()
    assert run(path) == 0
    assert [s for s in journal() if s.startswith("zero")] == ["zero 0", "zero 1", "zero 2"]


def test_a_signal_reaches_all_stages_that_run() -> None:
    path = write_recipe(RECIPE.replace("seed: 3\n", "seed: 3\nparallel: 2\n", 1))
    faults("zero 1 wait", "helpful 1 wait")

    def press() -> None:
        for stage in ("zero", "helpful"):
            wait_for(Path(f"waiting-{stage}"))
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=press)
    thread.start()
    assert run(path) == 143
    thread.join()
    states = {s["name"]: s["state"] for s in json.loads(Path("out/recipe.json").read_text())["stages"]}
    assert (states["zero"], states["helpful"]) == ("interrupted", "interrupted")
    assert run(path) == 0
    assert sorted(journal()) == sorted(f"{stage} {step}" for stage in STAGES for step in range(3))


def test_a_stage_that_outlives_its_killed_recipe_is_refused_then_resumed() -> None:
    path = write_recipe()
    faults("zero 1 wait")
    words = [
        sys.executable,
        "-c",
        "import sys; from tests.unit.recipe_support import *; run(Path(sys.argv[1]))",
        str(path),
    ]
    recipe = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])})
    wait_for(Path("waiting-zero"))
    pid = int(Path("waiting-zero").read_text())
    recipe.kill()
    recipe.wait()
    try:
        with pytest.raises(ConfigError, match=f"zero is still running as process {pid}"):
            run(path)
    finally:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + DEADLINE_S
    while True:  # until the system has reaped the process
        try:
            assert run(path) == 0
            break
        except ConfigError:
            assert time.monotonic() < deadline
    assert [s for s in journal() if s.startswith("zero")] == ["zero 0", "zero 1", "zero 2"]


def wait_for(path: Path) -> None:
    """Wait until the file exists and is not empty."""
    deadline = time.monotonic() + DEADLINE_S
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)
