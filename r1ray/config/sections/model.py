"""Section `model`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from r1ray.config.annotations import Doc, NonEmpty, Range

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a block, as Llama and Qwen name them."""


@dataclass
class LoraConfig:
    """Low-rank adapters (LoRA), which are trained instead of the weights if a rank is set."""

    rank: Annotated[int | None, Range(ge=1), Doc("rank of every adapter; null: train all weights")] = None
    alpha: Annotated[float, Range(gt=0), Doc("what an adapter computes is multiplied by alpha / rank")] = 32.0
    targets: Annotated[
        list[str], NonEmpty(), Doc("linear layers with an adapter: the ends of their names, up_proj or mlp.up_proj")
    ] = field(default_factory=lambda: list(LORA_TARGETS))


@dataclass
class ModelConfig:
    """The model that is trained, sampled or evaluated."""

    path: Annotated[
        str,
        NonEmpty(),
        Doc('folder in the Hugging Face format, or "tiny": the embedded model, which is built if it is missing'),
    ] = "???"
    dtype: Annotated[Literal["float32", "bfloat16"], Doc("compute type of the learner")] = "bfloat16"
    max_length: Annotated[int, Range(ge=2), Doc("prompt and completion together, in tokens")] = 4096
    attention: Annotated[
        Literal["auto", "packed", "flash_attention_2"], Doc("attention over packed sequences in the learner")
    ] = "auto"
    activation_checkpointing: Annotated[
        bool, Doc("recompute activations in the backward pass: less memory, about a third slower")
    ] = False
    trust_remote_code: Annotated[
        bool,
        Doc("run the Python code in the model's folder, with the rights of the run: only for code that you have read"),
    ] = False
    lora: LoraConfig = field(default_factory=LoraConfig)
