"""Small random models for tests that need weights but no skill."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

VOCABULARY = 272
"""Tokens of the tokenizer that `write_model` writes."""


def random_model(seed: int, **changes: int) -> Qwen2ForCausalLM:
    """A Qwen2 of 300k parameters with tied embeddings and the vocabulary of `write_model`."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"vocab_size": VOCABULARY} | changes
    config = Qwen2Config(
        intermediate_size=128,
        tie_word_embeddings=True,
        max_position_embeddings=256,
        initializer_range=0.2,
        eos_token_id=0,
        bos_token_id=0,
        **sizes,
    )
    return Qwen2ForCausalLM(config)


def write_model(model: Qwen2ForCausalLM, folder: Path) -> None:
    """The model and a byte-level tokenizer of 272 tokens, in the Hugging Face format."""
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
