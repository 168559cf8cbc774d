"""Facts about a model folder in the Hugging Face format, read without loading the model."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1ray.errors import ConfigError

SCALE = "_scale_inv"
"""End of the name of the scales of a weight in fp8, after the name of the weight."""
_SAMPLES = 64
_SAMPLE_BYTES = 4096
_NO_SIZES = ("transformers_version", "_name_or_path")
"""Keys of config.json that do not describe the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Sizes of a decoder-only transformer. Producer: `read_shape`. Consumers: preflight, model card, serving."""

    parameters: int  # as stored: tied embeddings count once
    layers: int
    hidden: int
    heads: int  # of attention
    intermediate: int
    key_value: int  # key-value heads x head size
    key_value_heads: int
    vocabulary: int
    context: int  # longest sequence that the positions allow, in tokens
    output: int = 0  # values of an output layer (`lm_head`) with weights of its own; 0: tied to the embedding
    experts: int = 0  # values in the fused gate and up tensor of one layer's experts; 0: no experts
    recomputes: bool = False  # RMSNorm and SwiGLU layers, of which the learner stores less (learner/recompute.py)
    quantized: str = ""  # quantisation method of the stored weights, such as gptq; empty: none, or fp8 in blocks
    expert_count: int = 0  # routed experts of a layer
    kind: str = ""  # type of the model, such as qwen3_moe
    block_fp8: bool = False  # stored in fp8 with a scale for each block, which the learner reads as unquantised
    routed: int = 0  # parameters of all routed experts; 0: no experts
    active_share: float = 1.0  # share of the routed experts that one token uses
    latent: int = 0  # values of a token in one layer's compressed KV cache (MLA); 0: a key and a value of each head
    short_context: int = 0  # longer sequences in a row change the positions of all others (longrope); 0: never

    @property
    def largest(self) -> int:
        """Number of values of the largest weight: embedding, feed-forward matrix, or one layer's experts."""
        return max(self.vocabulary * self.hidden, self.intermediate * self.hidden, self.experts)

    def divides(self, parts: int) -> bool:
        """Whether vLLM can shard the model over so many processes: heads and columns evenly, key-value heads evenly or
        copied evenly."""
        copied = parts % self.key_value_heads == 0 or self.key_value_heads % parts == 0
        return self.heads % parts == 0 and self.intermediate % parts == 0 and (copied or self.latent > 0)

    @property
    def active(self) -> float:
        """Parameters that one token uses: all of a dense model."""
        return self.parameters - self.routed * (1 - self.active_share)

    @property
    def cached(self) -> int:
        """Values of one token in the KV cache of one layer."""
        return self.latent or 2 * self.key_value


def read_shape(folder: Path) -> ModelShape:
    """The sizes of the model in `folder`, from config.json and from the headers of the safetensors files.

    Raises ConfigError that names the missing or unreadable part.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder: download a model with `hf download NAME --local-dir {folder}`")
    try:
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        heads = int(raw["num_attention_heads"])
        blocks = scale_blocks(raw.get("quantization_config"))
        sizes = {name: size for file in _weights(folder) for name, size in _sizes(file).items()}
        rank = int(raw.get("kv_lora_rank") or 0)  # multi-head latent attention: DeepSeek-V2 and V3
        head_size = int(raw.get("head_dim") or raw["hidden_size"] // heads)
        if rank:
            head_size = int(raw["qk_nope_head_dim"]) + int(raw["qk_rope_head_dim"])
        shape = ModelShape(
            parameters=sum(size for name, size in sizes.items() if blocks is None or not name.endswith(SCALE)),
            output=sizes.get("lm_head.weight", 0),
            layers=int(raw["num_hidden_layers"]),
            hidden=int(raw["hidden_size"]),
            heads=heads,
            intermediate=int(raw["intermediate_size"]),
            key_value=int(raw.get("num_key_value_heads") or heads) * head_size,
            key_value_heads=int(raw.get("num_key_value_heads") or heads),
            vocabulary=int(raw["vocab_size"]),
            context=int(raw["max_position_embeddings"]),
            experts=_experts(raw),
            recomputes=raw.get("hidden_act") == "silu" and "rms_norm_eps" in raw and not _experts(raw),
            quantized="" if blocks else str((raw.get("quantization_config") or {}).get("quant_method", "")),
            block_fp8=blocks is not None,
            expert_count=_expert_count(raw),
            kind=str(raw.get("model_type", "")),
            routed=sum(size for name, size in sizes.items() if ".experts." in name),
            active_share=_active_share(raw),
            latent=rank + int(raw["qk_rope_head_dim"]) if rank else 0,
            short_context=_short_context(raw),
        )
    except FileNotFoundError as e:
        raise ConfigError(f"{folder} is not a model folder: it has no config.json") from e
    except (KeyError, TypeError, ValueError, struct.error) as e:
        raise ConfigError(f"{folder} cannot be read as a decoder-only transformer: {e!r}") from e
    return shape


def scale_blocks(quantization: Mapping[str, Any] | None) -> tuple[int, int] | None:
    """Rows and columns of the blocks of weights in fp8 that have one scale each, by `quantization_config` of
    config.json.

    None for unquantized weights and for other quantizations.
    """
    if quantization is None or quantization.get("quant_method") != "fp8":
        return None
    size = quantization.get("weight_block_size")
    return (int(size[0]), int(size[1])) if size else None


def is_block_fp8(folder: Path) -> bool:
    """Whether config.json says that the weights are stored in fp8 with a scale for each block."""
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return scale_blocks(raw.get("quantization_config")) is not None


def _largest(figure: Any) -> int:
    return max(map(int, figure)) if isinstance(figure, list) else int(figure)


def _experts(raw: dict[str, Any]) -> int:
    """Number of values in the gate and up tensor of one layer's experts.

    Some configurations have a list with one number per layer.
    """
    count = _expert_count(raw)
    width = _largest(raw.get("moe_intermediate_size") or raw["intermediate_size"])
    return count * 2 * width * int(raw["hidden_size"])


def _expert_count(raw: dict[str, Any]) -> int:
    keys = ("n_routed_experts", "num_experts", "num_local_experts")
    return next((_largest(raw[key]) for key in keys if raw.get(key)), 0)


def _active_share(raw: dict[str, Any]) -> float:
    """Share of the routed experts that one token uses; 1.0 without experts."""
    chosen = raw.get("num_experts_per_tok")
    return min(1.0, int(chosen) / count) if chosen and (count := _expert_count(raw)) else 1.0


def _short_context(raw: dict[str, Any]) -> int:
    """The sequence length up to which longrope takes its short factors; 0 for other positions."""
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if (rope.get("rope_type") or rope.get("type")) != "longrope":
        return 0
    key = "original_max_position_embeddings"
    return int(rope.get(key) or raw.get(key) or raw["max_position_embeddings"])


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer in `folder` has a chat template of its own."""
    if (folder / "chat_template.jinja").exists():
        return True
    file = folder / "tokenizer_config.json"
    return file.exists() and bool(json.loads(file.read_text(encoding="utf-8")).get("chat_template"))


def model_hash(folder: Path) -> str:
    """32 hexadecimal digits that identify the sizes and weights of a model.

    The hash covers the size and 64 samples of each file of weights: training changes all weights, and reading a large
    model completely takes minutes. Raises ConfigError in the same cases as `read_shape`.
    """
    read_shape(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    meaning = {key: value for key, value in config.items() if key not in _NO_SIZES}
    digest = hashlib.blake2b(json.dumps(meaning, sort_keys=True).encode(), digest_size=16)
    for path in _weights(folder):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for i in range(_SAMPLES):
                file.seek(i * max(0, size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def linear_layers(folder: Path) -> list[str]:
    """Names of the matrices of the model's blocks, without `.weight`: no embedding, no output layer.

    Blocks are numbered; the names are those of the checkpoint. Raises ConfigError if the folder has no weights.
    """
    shapes = {name: shape for file in _weights(folder) for name, shape in _shapes(file).items()}
    return [
        name.removesuffix(".weight")
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2 and any(part.isdigit() for part in name.split("."))
    ]


def ends_with(name: str, target: str) -> bool:
    """Whether a dotted name ends with `target`, in complete parts: a.q_proj with q_proj, not a.qq_proj."""
    return f".{name}".endswith(f".{target}")


def stored_values(folder: Path) -> int:
    """Number of values in the weights of any kind of model.

    Raises ConfigError if the folder has none in safetensors, or they cannot be read.
    """
    try:
        return sum(size for file in _weights(folder) for size in _sizes(file).values())
    except (KeyError, TypeError, ValueError, struct.error) as e:
        raise ConfigError(f"the weights in {folder} cannot be read: {e!r}") from e


def _weights(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{folder} has no weights (*.safetensors): complete the download")
    return files


def _sizes(file: Path) -> dict[str, int]:
    """Name -> number of values of each tensor."""
    return {name: math.prod(shape) for name, shape in _shapes(file).items()}


def _shapes(file: Path) -> dict[str, list[int]]:
    """Name -> shape of each tensor: a safetensors file begins with eight bytes of header length, then JSON."""
    with file.open("rb") as f:
        (length,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(length))
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
