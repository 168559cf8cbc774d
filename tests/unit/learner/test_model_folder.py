"""Reading a model's folder: the values of `from_pretrained`, one parameter at a time, and folders that are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from learner.checkpoint_format import CheckpointFormat, persistent_buffers
from learner.empty import DTYPES, empty_model, materialize
from learner.model_folder import FolderReader, _set_conversions
from r1ray.config.schema import ModelConfig
from r1ray.errors import ConfigError

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"vocab_size": 61, "num_key_value_heads": 2, "max_position_embeddings": 64}
EXPERTS = {"moe_intermediate_size": 16, "num_experts_per_tok": 2}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "tied": ("Qwen2", {"tie_word_embeddings": True}),
    "untied": ("Llama", {"tie_word_embeddings": False}),
    "experts": ("Qwen3Moe", {**EXPERTS, "num_experts": 4}),
    "routing bias": (
        "DeepseekV3",
        {**EXPERTS, **LATENT, "num_key_value_heads": 4, "n_routed_experts": 4, "first_k_dense_replace": 1}
        | {"n_group": 2, "topk_group": 1},
    ),
}
AUTO = {"causal": AutoModelForCausalLM, "classifier": AutoModelForSequenceClassification}


def write(folder: Path, kind: str) -> Path:
    import transformers

    name, changes = KINDS[kind]
    torch.manual_seed(3)
    model = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**{**SIZES, **changes}))
    for _, buffer in persistent_buffers(model):
        buffer.normal_()
    model.save_pretrained(folder)
    return folder


def read(folder: Path, dtype: str = "float32", auto: str = "causal", fresh: Any = None, **settings: Any) -> Any:
    config = ModelConfig(path=str(folder), dtype=dtype)
    hf = empty_model(AUTO[auto], config, folder, attention="eager", kind="a model", **settings)
    assert all(p.is_meta for p in hf.parameters())
    reader = FolderReader(folder, hf, fresh or {})
    _set_conversions(hf, reader.used)
    materialize(hf, reader.read, device=torch.device("cpu"))
    return hf


def tensors(model: Any) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_that_of_transformers_to_the_bit(tmp_path: Path, kind: str, dtype: str) -> None:
    folder = write(tmp_path, kind)
    expected = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype], attn_implementation="eager")
    found = read(folder, dtype)
    assert tensors(found).keys() == tensors(expected).keys()
    for name, tensor in tensors(expected).items():
        assert (tensors(found)[name].dtype, name) == (tensor.dtype, name)
        assert torch.equal(tensors(found)[name], tensor), name
    assert (found.lm_head.weight is found.model.embed_tokens.weight) == (kind == "tied")
    names = [part for n, p in found.named_parameters() for part, _ in CheckpointFormat(found).tensors(n, p)]
    assert set(names) <= set(load_file(folder / "model.safetensors"))  # an export has the folder's names again


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    file = folder / "model.safetensors"
    stored = load_file(file)
    change(stored)
    save_file(stored, file, metadata={"format": "pt"})


def test_a_tied_weight_may_be_stored_under_either_name_or_both(tmp_path: Path) -> None:
    folder = write(tmp_path, "tied")
    embedding = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    rewrite(folder, lambda t: t.update({"lm_head.weight": embedding.clone()}))
    assert torch.equal(read(folder).lm_head.weight, embedding)
    rewrite(folder, lambda t: t.pop("model.embed_tokens.weight"))
    assert torch.equal(read(folder).model.embed_tokens.weight, embedding)


def test_tied_weights_that_differ_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, "tied")
    rewrite(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + 1}))
    with pytest.raises(
        ConfigError, match=r"model\.embed_tokens\.weight and lm_head\.weight differ.*tie_word_embeddings"
    ):
        read(folder)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("tied", "model.norm.weight", "lacks 1 tensors of a Qwen2ForCausalLM: model.norm.weight"),
        ("untied", "lm_head.weight", "lacks 1 tensors of a LlamaForCausalLM: lm_head.weight"),
        ("routing bias", "model.layers.1.mlp.gate.e_score_correction_bias", "lacks 1 tensors.*e_score_correction_bias"),
    ],
)
def test_a_folder_that_lacks_a_tensor_is_refused(tmp_path: Path, kind: str, name: str, message: str) -> None:
    folder = write(tmp_path, kind)
    rewrite(folder, lambda t: t.pop(name))
    with pytest.raises(ConfigError, match=message):
        read(folder)


def test_an_expert_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, "experts")
    rewrite(folder, lambda t: t.pop("model.layers.1.mlp.experts.2.up_proj.weight"))
    with pytest.raises(ConfigError, match=r"model\.layers\.1\.mlp\.experts\.gate_up_proj"):
        read(folder)


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, "untied")
    rewrite(folder, lambda t: t.update({"model.norm.weight": torch.ones(5)}))
    with pytest.raises(ConfigError, match=r"model.norm.weight has shape \(5,\), expected \(32,\)"):
        read(folder)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "untied") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"model\.safetensors cannot be read"):
        read(tmp_path)


def test_a_language_model_gets_a_new_head_and_a_reward_model_keeps_its_own(tmp_path: Path) -> None:
    folder, fresh = write(tmp_path, "tied"), {"score.weight": lambda weight: weight.fill_(7.0)}
    found = read(folder, auto="classifier", fresh=fresh, num_labels=1)
    assert found.score.weight.unique().tolist() == [7.0]
    stored = load_file(folder / "model.safetensors")
    assert torch.equal(found.model.norm.weight, stored["model.norm.weight"])
    rewrite(folder, lambda t: t.update({"score.weight": torch.ones(1, 32)}))
    assert read(folder, auto="classifier", fresh=fresh, num_labels=1).score.weight.unique().tolist() == [1.0]
