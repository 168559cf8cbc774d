"""Submitting a run: local checks, what is shipped, what the driver's command line is."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from r1ray.errors import ConfigError
from r1ray.launch.jobs import Jobs, RemoteFailed
from r1ray.launch.submit import new_run, resumed_run, submit, until_started
from r1ray.telemetry.logs import json_line
from tests.unit.fake_jobs import Details, FakeJobs

PLACES = ("run.dir=/shared/runs/my", "model.path=/shared/models/base")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the operator."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "my.yaml").write_text("data: {train: [{name: sums, path: arithmetic}]}\nrewards: [{name: accuracy}]\n")
    monkeypatch.chdir(tree)
    return tree


def test_the_driver_gets_the_arguments_and_the_tree(tree: Path) -> None:
    seen: list[list[str]] = []

    class Opened(FakeJobs):
        def submit_job(self, *, entrypoint: str, **options: Any) -> str:
            with zipfile.ZipFile(options["runtime_env"]["working_dir"]) as packed:
                seen.append(packed.namelist())
            return super().submit_job(entrypoint=entrypoint, **options)

    fake = Opened()
    order = new_run(["my.yaml", "clusters/ray"], [*PLACES, "deadlines.shutdown_s=90"])
    job = submit(order, Jobs(address="http://x", client=fake), tree)
    assert seen == [["my.yaml"]]
    (sent,) = fake.submitted
    assert sent["entrypoint"].startswith("python -m r1ray train my.yaml clusters/ray run.dir=/shared/runs/my")
    assert job.startswith("my-")
    assert sent["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "120"
    assert sent["metadata"] == {"r1ray": "train", "run": "/shared/runs/my"}


def test_overlays_are_named_as_in_the_tree(tree: Path, tmp_path: Path) -> None:
    assert new_run([str(tree / "my.yaml"), "clusters/ray"], PLACES).words[1:3] == ("my.yaml", "clusters/ray")
    (tmp_path / "other.yaml").write_text((tree / "my.yaml").read_text())
    with pytest.raises(ConfigError, match=r"other\.yaml lies outside the working tree"):
        new_run([str(tmp_path / "other.yaml"), "clusters/ray"], PLACES)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            (*PLACES, "ray.address=null"),
            "ray.address = null .*: the submitted run would start a Ray cluster of its own",
        ),
        (("run.dir=runs/my", PLACES[1]), "run.dir = 'runs/my' .*: it is relative"),
        ((PLACES[0], "model.path=tiny"), "model.path = 'tiny' .*: it is relative"),
        ((*PLACES, "learner.ranks=0"), "learner.ranks"),
        ((*PLACES, "learner.rank=1"), "learner.rank"),
    ],
)
def test_what_is_wrong_on_every_machine_is_refused_here(tree: Path, settings: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        new_run(["my.yaml", "clusters/ray"], settings)


def test_a_resume_is_of_a_path_on_the_cluster(tree: Path) -> None:
    order = resumed_run(Path("/shared/runs/my"), [], ["run.steps=9"])
    assert order.words == ("train", "--resume", "/shared/runs/my", "run.steps=9")
    with pytest.raises(ConfigError, match="expected the absolute path"):
        resumed_run(Path("runs/my"), [], [])


def test_the_drivers_lines_are_shown_until_its_checks_are_passed() -> None:
    line = json_line("Ray ...", run_id="r", actor="driver", stream="stdout")
    fake = FakeJobs(chunks=[f"a warning\n{line}\nmore\n"], holds=True)
    assert list(until_started(Jobs(address="http://x", client=fake), "my-1")) == ["a warning", line]
    fake = FakeJobs(chunks=["a warning\nRay ...\nmore\n"], holds=True)
    assert list(until_started(Jobs(address="http://x", client=fake), "my-1")) == ["a warning", "Ray ..."]
    assert (fake.stopped, fake.deleted) == ([], [])  # the run continues


def test_a_run_that_is_refused_there_is_an_error_here() -> None:
    fake = FakeJobs(chunks=["ConfigError: no model\n"], outcome=Details("FAILED", "failed", 2))
    lines = until_started(Jobs(address="http://x", client=fake), "my-1")
    assert next(lines) == "ConfigError: no model"
    with pytest.raises(RemoteFailed, match="the start of the run failed"):
        next(lines)
