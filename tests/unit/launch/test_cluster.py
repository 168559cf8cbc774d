"""What the actors of a run are given, with a fake Ray."""

from typing import Any
from unittest.mock import MagicMock

import pytest

from r1ray.config.load import load_config
from r1ray.config.transport import transport_of
from r1ray.launch import cluster, gang
from r1ray.launch.cluster import Cluster

ONE_TO_ONE = ["rollout.workers=1", "rollout.max_workers=1"]


class Pretended:
    """Takes the place of `ray.remote`; keeps what actors are made with."""

    def __init__(self) -> None:
        self.options_of: list[dict[str, Any]] = []
        self.groups: list[list[dict[str, float]]] = []  # bundles of each placement group

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def options(self, **options: Any) -> Any:
        self.options_of.append(options)
        return self

    remote = __call__


@pytest.mark.parametrize(
    ("overrides", "threads", "hidden"),
    [
        ([], "1", True),
        (["learner.num_cpus=8.5"], "8", True),
        (["learner.num_cpus=0.5"], "1", True),
        (["learner.num_gpus=1", "learner.num_cpus=4", "sync.transport=gloo"], "4", False),
    ],
)
def test_a_learner_has_the_threads_and_gpus_that_it_reserves(
    monkeypatch: pytest.MonkeyPatch, overrides: list[str], threads: str, hidden: bool
) -> None:
    """A rank that reserves no GPU sees none: Ray hides only those that others have."""
    ray = Pretended()
    monkeypatch.setattr(cluster.ray, "remote", ray)
    monkeypatch.setattr(gang, "placement_group", lambda bundles, strategy: ray.groups.append(bundles) or MagicMock())
    monkeypatch.setattr(gang, "PlacementGroupSchedulingStrategy", lambda group, placement_group_bundle_index: "gang")
    config = load_config(["tiny"], overrides).config
    made = Cluster(config=config, model_path="m", vocab_hash="v", run_dir="r", run_id="i")
    made.learner().spawn(0)
    made.supervised("sft").spawn(0)
    made.rewards()
    cpus, gpus = config.learner.num_cpus, config.learner.num_gpus
    assert ray.groups == [[{"CPU": cpus, **({"GPU": gpus} if gpus else {})}]] * 2
    assert [options.get("scheduling_strategy") for options in ray.options_of] == ["gang", "gang", None]
    environments = [options["runtime_env"]["env_vars"] for options in ray.options_of]
    assert [e["OMP_NUM_THREADS"] for e in environments] == [threads, threads, "1"]
    assert [e.get("MALLOC_MMAP_THRESHOLD_") for e in environments] == [*["4194304"] * 2, None]  # of learners only
    assert [e.get("CUDA_VISIBLE_DEVICES") for e in environments] == [*([""] if hidden else [None]) * 2, ""]


@pytest.mark.parametrize(("exact", "workspace"), [("true", ":4096:8"), ("false", None)])
def test_processes_of_a_deterministic_run_fix_the_workspace_of_cublas(
    monkeypatch: pytest.MonkeyPatch, exact: str, workspace: str | None
) -> None:
    ray = Pretended()
    monkeypatch.setattr(cluster.ray, "remote", ray)
    monkeypatch.setattr(gang, "placement_group", lambda bundles, strategy: ray.groups.append(bundles) or MagicMock())
    monkeypatch.setattr(gang, "PlacementGroupSchedulingStrategy", lambda group, placement_group_bundle_index: "gang")
    gpu = ["learner.num_gpus=1", "rollout.num_gpus=1", "sync.transport=nccl", "queue.max_staleness=0"]
    config = load_config(["tiny"], [*gpu, *ONE_TO_ONE, f"run.deterministic={exact}"]).config
    made = Cluster(config=config, model_path="m", vocab_hash="v", run_dir="r", run_id="i")
    made.learner().spawn(0)
    made.rollout("rollout-0")
    made.rewards()
    environments = [options["runtime_env"]["env_vars"] for options in ray.options_of]
    assert [e.get("CUBLAS_WORKSPACE_CONFIG") for e in environments] == [workspace, workspace, None]


@pytest.mark.parametrize(
    ("overrides", "transport"),
    [
        (["learner.num_gpus=0", "rollout.num_gpus=0"], "gloo"),
        (["learner.num_gpus=1", "rollout.num_gpus=0"], "gloo"),
        (["learner.num_gpus=0", "rollout.num_gpus=1"], "gloo"),
        (["learner.num_gpus=1", "rollout.num_gpus=1"], "nccl"),
        (["learner.num_gpus=1", "rollout.num_gpus=1", *ONE_TO_ONE], "nccl"),
        (["learner.num_gpus=1", "rollout.num_gpus=0.5", *ONE_TO_ONE], "nccl"),  # the rest of it for a reward model, say
        (["learner.num_gpus=1", "rollout.num_gpus=0.9", "rollout.max_workers=4"], "nccl"),
        (["learner.num_gpus=0.5", "rollout.num_gpus=0.5", *ONE_TO_ONE], "ipc"),
        (["learner.num_gpus=0.5", "rollout.num_gpus=0.5", *ONE_TO_ONE, "sync.transport=gloo"], "gloo"),
    ],
)
def test_auto_takes_the_transport_that_suits_the_devices(overrides: list[str], transport: str) -> None:
    assert transport_of(load_config(["tiny"], ["sync.transport=auto", *overrides]).config) == transport
