"""Hashes of what stages read and write."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from r1ray.errors import ConfigError
from r1ray.models.folder import model_hash
from r1ray.recipe.tasks import Read

_CHUNK = 1 << 20
_FRAME = (
    "*token*.json",
    "*.tiktoken",
    "tokenizer.model",
    "vocab.*",
    "merges.txt",
    "chat_template*",
    "additional_chat_templates/*",
    "generation_config.json",
)
"""Files of a model folder that decide how it is asked and where it ends: tokens, special tokens, chat templates."""


def read_digest(read: Read) -> str:
    """What `read` holds now, as hexadecimal digits: weights and frame of a model (see `digest`), the bytes of data.

    A data set on the hub is not fetched for this: its name stands for it. Raises ConfigError where nothing is there.
    """
    if read.hub and not read.path.exists():
        return f"hub:{read.reference}"
    if not read.path.exists():
        raise ConfigError(f"{read.reference}: {read.path} is not there")
    return digest(read.path)


def digest(path: Path) -> str:
    """Of a model folder, another folder, or a file. Hidden files do not count. Raises ConfigError for a broken model folder."""
    if (path / "config.json").is_file():
        # Other tokens or another chat template for the same weights are another model.
        frame = hashlib.blake2b(digest_size=8)
        for file in sorted({p for pattern in _FRAME for p in path.glob(pattern) if p.is_file()}):
            _feed(frame, path, file)
        return f"{model_hash(path)}-{frame.hexdigest()}"
    total = hashlib.blake2b(digest_size=16)
    if path.is_file():
        _feed_bytes(total, path)
        return total.hexdigest()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        if not any(part.startswith(".") for part in file.relative_to(path).parts):
            _feed(total, path, file)
    return total.hexdigest()


def _feed(total: hashlib.blake2b, folder: Path, file: Path) -> None:
    """The file's name within the folder, its size and its bytes."""
    total.update(json.dumps([str(file.relative_to(folder)), file.stat().st_size]).encode())
    _feed_bytes(total, file)


def _feed_bytes(total: hashlib.blake2b, file: Path) -> None:
    with file.open("rb") as f:
        while chunk := f.read(_CHUNK):
            total.update(chunk)
