"""Section `model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from r1ray.config.annotations import Doc, NonEmpty, Range


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
