"""What the machine, the disk and the model folder refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1ray.config.load import load_config
from r1ray.config.problems import Problem
from r1ray.config.schema import Config
from r1ray.preflight.environment import check_environment
from r1ray.util.machine import GIB, Machine
from tests.unit.model_folder import write_model

CPU_ONLY = Machine(cores=2, memory_bytes=8 * GIB, shared_memory_bytes=GIB, gpu_memory_bytes=(), cpu_bfloat16=False)


class TestSurroundings:
    @pytest.fixture
    def config(self, tmp_path: Path) -> Config:
        write_model(tmp_path / "model", context=256)
        return load_config(["tiny"], [f"model.path={tmp_path / 'model'}"]).config

    def found(self, config: Config, machine: Machine = CPU_ONLY) -> dict[str, Problem]:
        return {p.key: p for p in check_environment(config, machine)}

    def test_the_tiny_configuration_fits_a_machine_without_gpu(self, config: Config) -> None:
        assert self.found(config) == {}

    @pytest.mark.parametrize(
        ("gone", "reason"),
        [
            ("config.json", "no config.json"),
            ("model.safetensors", "no weights"),
            ("tokenizer.json", "no tokenizer"),
        ],
    )
    def test_a_part_of_the_model_that_is_missing_is_named(self, config: Config, gone: str, reason: str) -> None:
        (Path(config.model.path) / gone).unlink()
        assert reason in self.found(config)["model.path"].message

    def test_a_model_folder_that_is_missing_is_named(self, config: Config) -> None:
        config.model.path = "models/nowhere"
        assert "hf download" in self.found(config)["model.path"].message

    def test_quantized_weights_are_not_trained_but_may_be_sampled_from(self, config: Config, tmp_path: Path) -> None:
        model = write_model(tmp_path / "fp8", quantization_config={"quant_method": "fp8"})
        config.model.path = str(model)
        problem = self.found(config)["model.path"]
        assert "quantized (fp8)" in problem.message
        assert "bfloat16" in problem.fix
        assert check_environment(config, CPU_ONLY, "eval") == []
        blocks = {"quant_method": "fp8", "weight_block_size": [128, 128]}  # which the learner reads
        config.model.path = str(write_model(tmp_path / "blocks", quantization_config=blocks))
        assert self.found(config) == {}

    def test_a_length_over_the_context_is_refused(self, config: Config) -> None:
        config.model.max_length = 257
        assert "max_position_embeddings = 256" in self.found(config)["model.max_length"].message

    def test_an_engine_must_divide_the_models_heads(self, config: Config) -> None:
        config.rollout.engine.tensor_parallel_size = 3
        problem = self.found(config)["rollout.engine.tensor_parallel_size"]
        assert "4 attention heads" in problem.message
        assert problem.fix == "one of 1, 2, 4"

    def test_an_engine_must_divide_or_copy_the_key_value_heads(self, config: Config, tmp_path: Path) -> None:
        heads = {"num_attention_heads": 12, "num_key_value_heads": 4}
        config.model.path = str(write_model(tmp_path / "grouped", **heads))
        config.rollout.engine.tensor_parallel_size = 6
        problem = self.found(config)["rollout.engine.tensor_parallel_size"]
        assert "neither 4 key-value heads nor copies of them evenly" in problem.message
        assert problem.fix == "one of 1, 2, 4, 12"
        config.rollout.engine.tensor_parallel_size = 12  # each head in three processes
        assert self.found(config) == {}

    @pytest.mark.parametrize(
        ("ranks", "size", "fix"),
        [
            (6, 3, "2, of 1, 2, which also divide learner.ranks = 6"),
            (8, 8, "4, of 1, 2, 4, which also divide learner.ranks = 8"),
        ],
    )
    def test_a_sequence_group_must_divide_the_models_heads(
        self, config: Config, ranks: int, size: int, fix: str
    ) -> None:
        config.learner.ranks, config.learner.sequence_parallel = ranks, size
        problem = self.found(config)["learner.sequence_parallel"]
        assert "4 attention heads" in problem.message
        assert problem.fix == fix
        assert check_environment(config, CPU_ONLY, "eval") == []

    def test_positions_that_depend_on_the_longest_sequence_are_refused_beyond_their_short_context(
        self, config: Config, tmp_path: Path
    ) -> None:
        scaled = {"rope_type": "longrope", "original_max_position_embeddings": 128}
        config.model.path = str(write_model(tmp_path / "longrope", rope_parameters=scaled))
        assert config.model.max_length > 128
        assert self.found(config)["model.max_length"].fix == "at most 128, or another model"
        config.model.path = str(write_model(tmp_path / "yarn", rope_parameters={**scaled, "rope_type": "yarn"}))
        assert self.found(config) == {}

    @pytest.mark.parametrize(
        ("targets", "message", "fix"),
        [
            (["q_proj", "mlp.up_proj"], None, None),
            (["q_proj", "query", "proj"], "no linear layer is named query, proj", "some of down_proj, q_proj, up_proj"),
            (["lm_head"], "no linear layer is named lm_head", "some of down_proj"),
            (["gate_proj"], "gate_proj names experts", "layers of attention"),
            (["up_proj"], "up_proj names experts", "out of down_proj, q_proj, up_proj"),
            (["norm"], "no linear layer is named norm", "some of"),
        ],
    )
    def test_adapters_need_linear_layers_of_the_model(
        self, config: Config, tmp_path: Path, targets: list[str], message: str | None, fix: str | None
    ) -> None:
        shapes = {"lm_head": [361, 128], "model.embed_tokens": [361, 128], "model.norm": [128]}
        shapes |= {"model.layers.0.self_attn.q_proj": [128, 128], "model.layers.0.mlp.up_proj": [384, 128]}
        shapes |= {"model.layers.0.mlp.down_proj": [128, 384]}
        shapes |= {f"model.layers.1.mlp.experts.3.{name}": [64, 128] for name in ("gate_proj", "up_proj")}
        named = {f"{name}.weight": shape for name, shape in shapes.items()}
        config.model.path = str(write_model(tmp_path / "layers", shapes=named))
        config.model.lora.targets = targets
        assert self.found(config) == {}  # without a rank there are no adapters
        config.model.lora.rank = 4
        found = self.found(config)
        assert found.keys() == ({"model.lora.targets"} if message else set())
        if message and fix:
            assert message in found["model.lora.targets"].message
            assert fix in found["model.lora.targets"].fix
        assert check_environment(config, CPU_ONLY, "eval") == []

    @pytest.mark.parametrize(
        ("model", "n", "message", "fix"),
        [
            ({"num_experts": 6, "model_type": "qwen3_moe"}, 2, None, None),
            ({"n_routed_experts": 6, "model_type": "deepseek_v3"}, 3, None, None),
            ({}, 2, "this model has none", "1"),
            ({"num_experts": 6, "model_type": "olmoe"}, 2, "types qwen3_moe, deepseek_v3, got olmoe", "1"),
            (
                {"num_experts": 6, "model_type": "qwen3_moe"},
                4,
                "does not divide the model's 6 experts",
                "3, which also",
            ),
        ],
    )
    def test_ranks_divide_the_experts_of_models_that_autoep_knows(
        self, config: Config, tmp_path: Path, model: dict[str, Any], n: int, message: str | None, fix: str | None
    ) -> None:
        config.model.path = str(write_model(tmp_path / "experts", moe_intermediate_size=32, **model))
        config.learner.ranks, config.learner.expert_parallel = 12, n
        found = self.found(config)
        assert found.keys() == ({"learner.expert_parallel"} if message else set())
        if message and fix:
            assert message in found["learner.expert_parallel"].message
            assert found["learner.expert_parallel"].fix.startswith(fix)

    @pytest.mark.parametrize("routing", ["compare", "replay"])
    def test_routing_needs_a_mixture_of_experts(self, config: Config, tmp_path: Path, routing: str) -> None:
        config.algorithm.routing = routing
        assert "no experts" in self.found(config)["algorithm.routing"].message
        config.model.path = str(write_model(tmp_path / "experts", num_experts=4, moe_intermediate_size=32))
        assert self.found(config) == {}

    def test_a_chat_template_must_be_there_where_it_is_needed(self, config: Config) -> None:
        config.data.template = "r1"
        assert "has none" in self.found(config)["data.template"].message
        (Path(config.model.path) / "chat_template.jinja").write_text("{{ messages }}")
        assert self.found(config) == {}

    def test_bfloat16_needs_a_cpu_that_has_it(self, config: Config) -> None:
        config.model.dtype = "bfloat16"
        config.rollout.engine.dtype = "bfloat16"
        assert {"model.dtype", "rollout.engine.dtype"} == set(self.found(config))
        assert self.found(config, replace(CPU_ONLY, cpu_bfloat16=True)) == {}

    def test_gpus_that_are_not_there_are_refused_unless_a_cluster_is_joined(self, config: Config) -> None:
        config.learner.num_gpus = 1.0
        assert "no GPU" in self.found(config)["learner.num_gpus"].message
        config.ray.address = "auto"
        assert self.found(config) == {}

    def test_data_files_must_be_there_and_hold_something(self, config: Config, tmp_path: Path) -> None:
        source = config.data.train[0]
        source.kind, source.path = "jsonl", str(tmp_path / "prompts.jsonl")
        assert "not there" in self.found(config)["data.train.0.path"].message
        (tmp_path / "prompts.jsonl").touch()
        assert "is empty" in self.found(config)["data.train.0.path"].message
        (tmp_path / "prompts.jsonl").write_text("{}\n")
        assert self.found(config) == {}

    def test_an_interface_that_is_not_there_is_told_which_are(self, config: Config) -> None:
        config.sync.interface = "ether99"
        assert "lo" in self.found(config)["sync.interface"].fix
