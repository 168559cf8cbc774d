"""A model folder with headers but no weights worth loading, for code that only reads sizes."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from r1ray.models.folder import ModelShape

SMALL = ModelShape(
    parameters=687_000,
    layers=3,
    hidden=128,
    heads=4,
    intermediate=384,
    key_value=128,
    key_value_heads=4,
    vocabulary=361,
    context=256,
)
"""Sizes close to those of the embedded model."""


def write_model(
    folder: Path, *, shapes: dict[str, list[int]] | None = None, context: int = 256, **changes: object
) -> Path:
    """Write config.json, a safetensors file of `shapes` without data, and an empty tokenizer into `folder`."""
    folder.mkdir(parents=True)
    config = {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "vocab_size": 361,
        "max_position_embeddings": context,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {
        n: {"dtype": "F32", "shape": s, "data_offsets": [0, 0]} for n, s in (shapes or {"w": [1000, 687]}).items()
    }
    header = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (folder / "tokenizer.json").write_text("{}")
    return folder
