"""Every shipped overlay names its hardware and fits it; what does not fit is refused with what would."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from r1ray.config.load import load_config
from r1ray.config.problems import Problem
from r1ray.config.schema import Config
from r1ray.config.sections.hardware import Gpu
from r1ray.config.sources import CONF_DIR
from r1ray.config.uses import Use
from r1ray.errors import ConfigError
from r1ray.models.folder import ModelShape
from r1ray.models.published import PUBLISHED, published_shape
from r1ray.preflight.accelerators import ACCELERATORS
from r1ray.preflight.hardware import host_bytes, place
from r1ray.preflight.memory import learner_bytes
from r1ray.preflight.placement import make_plan
from r1ray.util.machine import GIB, Machine

HERE = Machine(cores=2, memory_bytes=8 * GIB, shared_memory_bytes=4 * GIB, gpu_memory_bytes=(), cpu_bfloat16=False)
JOINED = "ray.address=head:6379"
ON_CPUS = ("smollm2-135m",)  # planned for the machine that it starts on
MODELS = sorted(path.stem for path in (CONF_DIR / "models").glob("*.yaml") if path.stem not in ON_CPUS)


def overlay(name: str, *overrides: str) -> tuple[Config, ModelShape]:
    config = load_config([f"models/{name}"], [JOINED, *overrides]).config
    shape = published_shape(config.model.path)
    assert shape is not None
    return config, shape


def problems(config: Config, shape: ModelShape, use: Use = "train") -> list[Problem]:
    return list(make_plan(config, shape, HERE, use).problems)


def refusal(name: str, *overrides: str) -> Problem:
    (found,) = problems(*overlay(name, *overrides))
    return found


def test_every_gpu_has_its_figures() -> None:
    assert tuple(ACCELERATORS) == get_args(Gpu)


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_overlay_names_its_hardware_and_fits_it(name: str) -> None:
    config, shape = overlay(name)
    assert config.hardware.gpu is not None
    assert problems(config, shape) == []
    assert len(place(config, make_plan(config, shape, HERE).roles)) == config.hardware.nodes


def test_a_local_start_is_held_against_the_declared_hardware_too() -> None:
    config = load_config(["models/qwen2.5-1.5b"], ["hardware.gpu=l40s-48", "learner.micro_batch_tokens=262144"]).config
    assert "learner.micro_batch_tokens" in {p.key for p in problems(config, PUBLISHED["qwen2.5-1.5b"])}


def test_seventy_billion_at_33_thousand_tokens_do_not_fit_80_gb_and_what_fits_is_said() -> None:
    found = refusal("llama-70b", "hardware.gpu=h100-80")
    assert found.key == "learner.micro_batch_tokens"
    assert "86.8 GiB" in found.message
    assert found.fix is not None
    assert "hardware.gpu=h200-141" in found.fix


def test_the_settings_for_80_gb_that_the_overlay_names_fit() -> None:
    text = (CONF_DIR / "models" / "llama-70b.yaml").read_text()
    named = re.findall(r"(?<=[ ])[a-z_.]+=[a-z0-9-]+", text)
    assert "hardware.gpu=h100-80" in named
    assert problems(*overlay("llama-70b", *named)) == []


@pytest.mark.parametrize(
    ("overrides", "fits"),
    [
        (("learner.zero_stage=0", "model.dtype=float32"), "learner.zero_stage"),
        (("model.activation_checkpointing=false", "learner.zero_stage=3"), "model.activation_checkpointing"),
        (("learner.micro_batch_tokens=98304",), "learner.micro_batch_tokens"),
        (("learner.micro_batch_tokens=98304",), "learner.sequence_parallel"),
    ],
)
def test_each_suggestion_of_a_refusal_fits(overrides: tuple[str, ...], fits: str) -> None:
    (found,) = (p for p in problems(*overlay("qwen2.5-7b", *overrides)) if p.key == "learner.micro_batch_tokens")
    assert found.fix is not None
    suggested = [s for s in found.fix.split("; or ") if "=" in s]
    assert any(s.startswith(fits) for s in suggested)
    for change in suggested:
        config, shape = overlay("qwen2.5-7b", *overrides, *change.split())
        assert sum(learner_bytes(config, shape)[0].values()) <= ACCELERATORS[str(config.hardware.gpu)].memory_bytes


@pytest.mark.parametrize(
    ("change", "key", "message", "fix"),
    [
        ("hardware.nodes=1", "hardware.nodes", "8 for 8 learner ranks, 8 for 8 rollout workers need 2", "2, or fewer"),
        (
            "hardware.host_gib=64",
            "hardware.host_gib",
            "a host with 8 rollout workers needs; most of it: staged weights",
            "121, or fewer",
        ),
        (
            "hardware.disk_mb_s=50",
            "deadlines.checkpoint_s",
            "to write or read a checkpoint: 107 GB take about 35m 32s at hardware.disk_mb_s = 50",
            "2133",
        ),
        (
            "learner.ranks=16,hardware.nodes=3,hardware.disk_mb_s=20",
            "deadlines.checkpoint_s",
            "a checkpoint, a share on each of 2 hosts: 107 GB take about 44m 25s at hardware.disk_mb_s = 20",
            "2666",
        ),
        ("deadlines.actor_start_s=10", "deadlines.actor_start_s", "15 GB take about 15.2 s", "at least 16"),
        ("hardware.network_gb_s=0.12", "sync.deadline_s", "15 GB take about 2m 19s", "at least 139"),
        ("hardware.gpu=cpu", "learner.num_gpus", "hardware.gpu is cpu", "learner.num_gpus=0"),
    ],
)
def test_what_the_hosts_lack_is_refused_by_its_key(change: str, key: str, message: str, fix: str) -> None:
    found = next(p for p in problems(*overlay("qwen2.5-7b", *change.split(","))) if p.key == key)
    assert message in found.message
    assert fix in str(found.fix)


def test_an_engine_that_one_host_does_not_hold_gets_the_number_of_hosts_that_do() -> None:
    wide = ("rollout.engine.tensor_parallel_size=16", "rollout.workers=4")
    found = refusal("llama-70b", *wide)
    assert found.key == "rollout.engine.tensor_parallel_size"
    assert (found.message, found.fix) == (
        "makes one rollout worker need 16 GPUs of one host, which has 8", "at most 8, or rollout.engine.hosts=2"
    )  # fmt: skip
    config, shape = overlay("llama-70b", *wide, "rollout.engine.hosts=2")
    assert problems(config, shape) == []
    roles = make_plan(config, shape, HERE).roles
    rollout = next(role for role in roles if role.name == "rollout worker")
    assert (rollout.count, rollout.parts, rollout.gpus) == (4, 8, 8)
    assert sum(node.get("rollout worker", 0) for node in place(config, roles)) == 8
    assert rollout.host["staged weights"] == 2 * shape.parameters  # each host has a copy


def test_an_engine_whose_weights_do_not_fit_gets_the_size_that_does() -> None:
    found = refusal("llama-70b", "rollout.engine.tensor_parallel_size=1", "rollout.workers=8", "sync.digest=wire")
    assert found.key == "rollout.engine.tensor_parallel_size"
    assert str(found.fix).startswith("2, or hardware.gpu=b200-180")


WRONG: list[tuple[str, tuple[str, ...], str]] = [
    ("llama-70b", ("rollout.engine.tensor_parallel_size=16", "rollout.workers=4"), "rollout.engine.hosts=2"),
    (
        "llama-70b",
        ("rollout.engine.tensor_parallel_size=1", "rollout.workers=8"),
        "rollout.engine.tensor_parallel_size=2",
    ),
    ("llama-70b", ("hardware.gpu=l40s-48", "learner.sequence_parallel=8"), "hardware.gpu=h200-141"),
    ("llama-70b", ("hardware.gpu=h100-80",), "learner.offload_optimizer=true"),
    ("qwen2.5-7b", ("hardware.gpu=a100-40",), "hardware.gpu=a100-80"),
    ("qwen2.5-7b", ("hardware.nodes=1",), "hardware.nodes=2"),
    ("qwen2.5-7b", ("hardware.host_gib=64",), "hardware.host_gib=121"),
    ("qwen2.5-7b", ("hardware.disk_mb_s=50",), "deadlines.checkpoint_s=2133"),
    ("qwen2.5-1.5b", ("hardware.gpu=cpu",), "learner.num_gpus=0"),
]
"""Overlay, settings that its hosts do not hold, and a setting that the refusal names."""


@pytest.mark.parametrize(("name", "wrong", "right"), WRONG)
def test_a_refusal_names_a_setting_without_which_its_problem_is_gone(
    name: str, wrong: tuple[str, ...], right: str
) -> None:
    found = problems(*overlay(name, *wrong))
    key, _, value = right.partition("=")
    named = [p for p in found if right in str(p.fix) or (p.key == key and value in str(p.fix).split(",")[0].split())]
    assert named, [(p.key, p.fix) for p in found]
    left = problems(*overlay(name, *wrong, right))
    assert named[0].key not in {p.key for p in left}


def test_nothing_is_compared_with_hardware_that_is_not_stated() -> None:
    assert problems(*overlay("llama-70b", "hardware.gpu=null", "hardware.nodes=1")) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("hardware.gpu=h101", r"hardware.gpu: expected one of a100-40, .*, cpu or null, got 'h101'"),
        ("hardware.nodes=0", r"hardware.nodes: expected an integer >= 1, got 0"),
        ("hardware.host_gib=-1", r"hardware.host_gib: expected a number > 0, got -1"),
    ],
)
def test_values_that_are_no_hardware(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(["tiny"], [change])


def test_hosts_are_packed_and_the_fullest_counts() -> None:
    config, shape = overlay("qwen2.5-7b", "learner.ranks=12")
    roles = make_plan(config, shape, HERE).roles
    nodes = place(config, roles)
    assert [{n: c for n, c in node.items() if "reward" not in n and n != "queue"} for node in nodes] == [
        {"learner rank": 8}, {"learner rank": 4, "rollout worker": 4}, {"rollout worker": 4},
    ]  # fmt: skip
    assert nodes[0].keys() == {"learner rank", "reward worker", "queue"}
    learner = sum(next(r for r in roles if r.name == "learner rank").host.values())
    assert host_bytes(nodes[0], roles) > 8 * learner
