"""Small random models for tests that need weights but no skill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

VOCABULARY = 272
"""Tokens of the tokenizer that `write_model` writes."""

_DENSE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "eos_token_id": 0,
    "bos_token_id": 0,
}


def random_model(seed: int, **changes: Any) -> Qwen2ForCausalLM:
    """A Qwen2 of 230k parameters with tied embeddings and the vocabulary of `write_model`; `changes` to its config."""
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(Qwen2Config(**{**_DENSE, "tie_word_embeddings": True, **changes}))


def random_llama(seed: int) -> LlamaForCausalLM:
    """A Llama of the same size, its embeddings and its output layer apart."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**_DENSE, tie_word_embeddings=False))


def random_experts(kind: str, seed: int) -> PreTrainedModel:
    """A mixture of four experts, two per token, with the vocabulary of `write_model`: "qwen3_moe" or "deepseek_v3"."""
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "moe_intermediate_size": 32,
        "num_attention_heads": 4,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        "initializer_range": 0.2,
        "eos_token_id": 0,
        "bos_token_id": 0,
    }
    if kind == "qwen3_moe":
        sizes |= {"num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 32, "num_experts": 4}
        sizes |= {"norm_topk_prob": True}
    else:  # vLLM's latent attention exists for these ranks only
        sizes |= {"num_hidden_layers": 2, "first_k_dense_replace": 1, "num_key_value_heads": 4, "n_routed_experts": 4}
        sizes |= {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
        sizes |= {
            "q_lora_rank": 32,
            "n_group": 2,
            "topk_group": 1,
            "topk_method": "noaux_tc",
            "scoring_func": "sigmoid",
        }
        yarn = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
        sizes["rope_parameters"] = yarn | {"beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes), dtype=torch.float32)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(torch.randn_like(buffer) * 0.1)
    return model


def write_model(model: PreTrainedModel, folder: Path) -> Path:
    """Write the model and a byte-level tokenizer of 272 tokens in the Hugging Face format; return `folder`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False
    )
    tokenizer.train_from_iterator(["User: what is seven and five\nAssistant: twelve"], trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    ).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def write_before_and_after(model: PreTrainedModel, folder: Path) -> tuple[Path, Path, dict[str, torch.Tensor]]:
    """Write the model, change every weight, and write it again; return both folders and the changed weights."""
    before = write_model(model, folder / "base")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return before, write_model(model, folder / "trained"), dict(model.named_parameters())
