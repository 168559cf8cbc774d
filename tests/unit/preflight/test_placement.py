"""Placement and memory: exact numbers by hand, and what does not fit is refused with them."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from r1ray.config.load import load_config
from r1ray.config.schema import Config
from r1ray.errors import ConfigError
from r1ray.models.folder import ModelShape, read_shape
from r1ray.preflight.memory import BUCKET_ELEMENTS, LIVE_PARAMETERS, LOGITS_AT_ONCE
from r1ray.preflight.placement import Plan, make_plan
from r1ray.util.machine import GIB, Machine, this_machine
from tests.unit.model_folder import SMALL, write_model

VOCABULARY, HIDDEN = 152_064, 3584
SEVEN_B = ModelShape(
    parameters=7_600_000_000,
    layers=28,
    hidden=HIDDEN,
    heads=28,
    intermediate=18944,
    key_value=512,
    key_value_heads=4,
    vocabulary=VOCABULARY,
    context=131_072,
)
LAPTOP = Machine(cores=2, memory_bytes=8 * GIB, shared_memory_bytes=4 * GIB, gpu_memory_bytes=(), cpu_bfloat16=False)
NODE = replace(
    LAPTOP, cores=96, memory_bytes=1024 * GIB, shared_memory_bytes=64 * GIB, gpu_memory_bytes=(80 * GIB,) * 16
)


def tiny(*overrides: str) -> Config:
    return load_config(["tiny"], ["model.path=models/x", *overrides]).config


def seven_b(*overrides: str) -> Config:
    return load_config(["models/qwen2.5-7b"], overrides).config


def keys(plan: Plan) -> set[str]:
    return {p.key for p in plan.problems}


def test_the_shape_is_read_from_the_config_and_the_headers_of_the_weights(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", shapes={"a": [361, 128], "b": [10], "scalar": []}, num_key_value_heads=2)
    shape = read_shape(folder)
    assert (shape.parameters, shape.key_value, shape.context) == (361 * 128 + 10 + 1, 64, 256)


def test_weights_in_several_files_are_counted_together(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", shapes={"a": [7]})
    header = json.dumps({"b": {"dtype": "F32", "shape": [5], "data_offsets": [0, 0]}}).encode()
    (folder / "model-2.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert read_shape(folder).parameters == 12


def test_the_experts_of_a_layer_are_one_weight(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", n_routed_experts=16, moe_intermediate_size=64)
    assert read_shape(folder).experts == 16 * 2 * 64 * 128
    assert read_shape(folder).largest == 16 * 2 * 64 * 128
    assert read_shape(write_model(tmp_path / "dense")).largest == 384 * 128
    listed = write_model(tmp_path / "listed", num_experts=[4, 8], moe_intermediate_size=[64, 32])
    assert read_shape(listed).experts == 8 * 2 * 64 * 128  # a figure for each layer: the largest of them


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("config.json", "{", "cannot be read"),
        ("config.json", '{"model_type": "resnet"}', "cannot be read"),
        ("model.safetensors", "short", "cannot be read"),
    ],
)
def test_what_is_no_model_is_told(tmp_path: Path, file: str, content: str, reason: str) -> None:
    folder = write_model(tmp_path / "m")
    (folder / file).write_text(content)
    with pytest.raises(ConfigError, match=reason):
        read_shape(folder)


def learner_device(*overrides: str, shape: ModelShape = SEVEN_B) -> dict[str, float]:
    return make_plan(seven_b(*overrides), shape, NODE).role("learner rank").device


def test_zero_stages_divide_what_they_divide() -> None:
    p = SEVEN_B.parameters
    device = {stage: learner_device(f"learner.zero_stage={stage}") for stage in (1, 2, 3)}
    assert [device[s]["optimizer"] for s in (1, 2, 3)] == [12 * p / 8, 12 * p / 8, 12 * p / 8]
    assert [device[s]["weights"] for s in (1, 2, 3)] == [2 * p, 2 * p, 2 * p / 8]
    assert "gathered weights" in device[3]
    assert device[2]["reference"] == 2 * p
    undivided = learner_device("learner.zero_stage=0", "model.dtype=float32")
    assert [undivided[item] for item in ("optimizer", "gradients", "weights")] == [8 * p, 4 * p, 4 * p]


def test_gradients_are_summed_in_float32_beside_what_a_backward_pass_leaves() -> None:
    """By the census of DeepSpeed's tensors: whole bfloat16 ones stay at stage 1,
    elsewhere they go with their bucket.
    """
    p, bucket = SEVEN_B.parameters, BUCKET_ELEMENTS + VOCABULARY * HIDDEN
    gradients = [learner_device(f"learner.zero_stage={stage}")["gradients"] for stage in (1, 2, 3)]
    assert gradients == [6 * p, 4 * p / 8 + 2 * bucket, 4 * p / 8 + 2 * bucket]
    assert learner_device("learner.zero_stage=1", "model.dtype=float32")["gradients"] == 4 * p + 4 * bucket


def test_offloaded_gradients_are_in_the_host() -> None:
    p, passing = SEVEN_B.parameters, 2 * (BUCKET_ELEMENTS + VOCABULARY * HIDDEN)
    for stage, on_device in ((1, 4 * p + passing), (2, passing), (3, passing)):
        offload = (f"learner.zero_stage={stage}", "learner.offload_optimizer=true")
        role = make_plan(seven_b(*offload), SEVEN_B, NODE).role("learner rank")
        assert (role.device["gradients"], role.host["offloaded gradients"]) == (on_device, 8 * p / 8)


def test_logits_are_there_in_blocks_and_the_gradient_of_their_weight_in_float32() -> None:
    device = learner_device()
    assert device["logits"] == 12 * LOGITS_AT_ONCE["cuda"]  # not 16,384 tokens x 152,064 words
    assert device["output gradient"] == (4 + 2) * VOCABULARY * HIDDEN
    assert learner_device("learner.micro_batch_tokens=131072")["logits"] == device["logits"]


def test_zero_3_gathers_the_next_layers_and_publishes_tensor_by_tensor() -> None:
    largest = VOCABULARY * HIDDEN
    stage = "learner.zero_stage=3"
    assert learner_device(stage)["gathered weights"] == 2 * (LIVE_PARAMETERS + largest)  # 3 of 15 GB
    bucket = 2**32
    published = learner_device(stage, f"sync.bucket_bytes={bucket}")["gathered weights"]
    assert published == 2 * (bucket + 2 * largest)  # a bucket's tensors, and the bucket
    few = replace(SEVEN_B, parameters=1_200_000_000)
    assert learner_device(stage, shape=few)["gathered weights"] == 2 * few.parameters
    experts = replace(SEVEN_B, parameters=10**12, experts=7_500_000_000)
    assert learner_device(stage, shape=experts)["gathered weights"] == 2 * (2**26 + 2 * experts.experts)


def test_no_host_holds_a_whole_model_while_the_learner_loads_it() -> None:
    for stage in (1, 3):
        role = make_plan(seven_b(f"learner.zero_stage={stage}"), SEVEN_B, NODE).role("learner rank")
        assert role.host["largest weight while it is read"] == 2 * 2 * SEVEN_B.largest
        assert sum(role.host.values()) < 2 * SEVEN_B.parameters


def test_offloading_moves_memory_to_the_host() -> None:
    offload = ["learner.offload_optimizer=true", "learner.offload_parameters=true", "learner.zero_stage=3"]
    role = make_plan(seven_b(*offload), SEVEN_B, NODE).role("learner rank")
    assert {"optimizer", "weights"} <= set(role.host)
    assert not {"optimizer", "weights"} & set(role.device)


def test_without_a_gpu_everything_is_in_the_host_and_float32_needs_no_master_copy() -> None:
    plan = make_plan(tiny(), SMALL, LAPTOP)
    learner, rollout = plan.role("learner rank"), plan.role("rollout worker")
    assert learner.device == {}
    assert learner.host["optimizer"] == 8 * SMALL.parameters
    assert learner.host["logits"] == 4096 * 361 * 8
    assert learner.host["output gradient"] == 361 * 128 * 8
    assert rollout.host["KV cache"] == 0.25 * GIB
    # a key and a value of 128 float32 in each of 3 layers
    assert plan.cache_tokens == int(0.25 * GIB) // (2 * 3 * 128 * 4)
    assert plan.problems == ()
    assert "Fits this machine." in plan.to_text()


def test_too_little_host_memory_is_refused_with_the_numbers() -> None:
    plan = make_plan(tiny("rollout.max_workers=40", "rollout.workers=40"), SMALL, LAPTOP)
    (found,) = plan.problems
    assert "this machine has 8.0 GiB" in found.message
    assert f"{plan.host_bytes / GIB:.1f} GiB of memory in all" in found.message
    assert "40 rollout worker" in found.message
    assert "Does not fit" in plan.to_text()


def test_a_cache_that_holds_no_whole_sequence_is_refused() -> None:
    plan = make_plan(tiny("rollout.engine.kv_cache_gib=0.0005"), SMALL, LAPTOP)
    assert keys(plan) == {"rollout.engine.kv_cache_gib"}
    assert "model.max_length = 192" in plan.problems[0].message


def test_an_object_store_larger_than_shared_memory_is_refused() -> None:
    plan = make_plan(tiny("ray.object_store_gib=1"), SMALL, replace(LAPTOP, shared_memory_bytes=64 << 20))
    assert keys(plan) == {"ray.object_store_gib"}
    assert "0.06 GiB" in plan.problems[0].message


def test_the_receivers_of_a_host_stage_one_copy_in_shared_memory() -> None:
    parallel = ("rollout.engine.tensor_parallel_size=4", "sync.digest=wire", "rollout.workers=1", "learner.ranks=8")
    roles = [make_plan(seven_b(*words), SEVEN_B, NODE).role("rollout worker") for words in (parallel, ())]
    assert roles[0].host["staged weights"] == roles[1].host["staged weights"]
    assert roles[0].host["process"] == 4 * roles[1].host["process"]
    small = replace(NODE, shared_memory_bytes=4 * GIB)
    assert "rollout.engine.tensor_parallel_size" in keys(make_plan(seven_b(*parallel), SEVEN_B, small))
    assert "rollout.workers" in keys(make_plan(seven_b(), SEVEN_B, small))
    alone = make_plan(seven_b("rollout.workers=1", "rollout.max_workers=1"), SEVEN_B, small)
    assert "rollout.workers" not in keys(alone)
    assert not {"rollout.engine.tensor_parallel_size", "rollout.workers"} & keys(
        make_plan(seven_b(*parallel), SEVEN_B, NODE)
    )


def test_custom_resources_need_a_cluster_that_has_them() -> None:
    assert keys(make_plan(tiny("ray.rollout_resources={rollout: 1}"), SMALL, LAPTOP)) == {"ray.rollout_resources"}
    joined = make_plan(tiny("ray.rollout_resources={rollout: 1}", "ray.address=auto"), SMALL, LAPTOP)
    assert joined.problems == ()
    assert "rollout:1" in joined.to_text()
    assert "the cluster provides memory and GPUs" in joined.to_text()


class TestGpus:
    def test_seven_billion_fit_sixteen_gpus_of_80_gib(self) -> None:
        assert make_plan(seven_b(), SEVEN_B, NODE).problems == ()

    def test_more_gpus_than_there_are(self) -> None:
        plan = make_plan(seven_b(), SEVEN_B, replace(NODE, gpu_memory_bytes=(80 * GIB,) * 8))
        assert keys(plan) == {"rollout.num_gpus"}
        assert "requests 16 GPUs, this machine has 8" in plan.problems[0].message

    def test_tensor_parallel_parts_take_a_gpu_each(self) -> None:
        plan = make_plan(seven_b("rollout.engine.tensor_parallel_size=2", "sync.digest=wire"), SEVEN_B, NODE)
        assert plan.role("rollout worker").gpus == 2
        assert plan.role("rollout worker").device["weights"] == SEVEN_B.parameters

    def test_a_rank_that_does_not_fit_its_gpu(self) -> None:
        plan = make_plan(seven_b("learner.zero_stage=1"), SEVEN_B, NODE)
        assert keys(plan) == {"learner.micro_batch_tokens"}

    def test_a_model_that_does_not_fit_vllms_share(self) -> None:
        plan = make_plan(seven_b("rollout.engine.gpu_memory_utilization=0.1"), SEVEN_B, NODE)
        here, declared = "rollout.engine.gpu_memory_utilization", "rollout.engine.tensor_parallel_size"
        assert keys(plan) == {here, declared}

    def test_a_shared_gpu_has_what_vllm_leaves(self) -> None:
        shared = ["learner.ranks=1", "learner.num_gpus=0.5", "rollout.num_gpus=0.5", "rollout.workers=1"]
        config = load_config(["models/qwen2.5-1.5b"], [*shared, "rollout.max_workers=1"]).config
        model = replace(SEVEN_B, parameters=500_000_000, layers=24, hidden=896, intermediate=4864, key_value=128)
        one = replace(NODE, gpu_memory_bytes=(80 * GIB,))
        assert keys(make_plan(config, model, one)) == {"learner.micro_batch_tokens"}
        config.rollout.engine.gpu_memory_utilization = 0.3
        config.learner.micro_batch_tokens = 8192
        assert make_plan(config, model, one).problems == ()


def test_a_plan_needs_no_torch() -> None:
    heavy = {"torch", "deepspeed", "vllm", "transformers"}
    code = f"import sys, r1ray.preflight.placement; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_this_machine_says_something_believable() -> None:
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.memory_bytes > 100 << 20
    assert len(machine.gpu_memory_bytes) == machine.gpus


def test_a_reward_model_has_neither_logits_nor_an_output_layer_nor_a_reference() -> None:
    untied = replace(SEVEN_B, output=VOCABULARY * HIDDEN)
    config = seven_b("algorithm.kl_coefficient=0.1")
    policy = make_plan(config, untied, NODE).role("learner rank").device
    scored = make_plan(config, untied, NODE, "reward-model").role("learner rank").device
    assert policy.keys() - scored.keys() == {"logits", "output gradient", "reference"}
    assert policy["weights"] - scored["weights"] == 2 * (VOCABULARY - 1) * HIDDEN
    tied = make_plan(config, SEVEN_B, NODE, "reward-model").role("learner rank").device
    assert tied["weights"] == policy["weights"] + 2 * HIDDEN
    assert "reference" not in make_plan(config, untied, NODE, "sft").role("learner rank").device


def test_an_output_layer_of_its_own_is_read_from_the_weights(tmp_path: Path) -> None:
    untied = write_model(tmp_path / "untied", shapes={"a": [7], "lm_head.weight": [361, 128]})
    assert read_shape(untied).output == 361 * 128
    assert read_shape(write_model(tmp_path / "tied", shapes={"a": [7]})).output == 0
