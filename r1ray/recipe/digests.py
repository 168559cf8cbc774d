"""Hashes of what stages read and write."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from r1ray.errors import ConfigError
from r1ray.modelfolder import model_hash
from r1ray.recipe.tasks import Read

_CHUNK = 1 << 20


def read_digest(read: Read) -> str:
    """What `read` holds now, as hexadecimal digits: the weights of a model (see `model_hash`), the bytes of data.

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
        # The tokenizer belongs to the model: other tokens for the same weights are another model.
        tokenizer = path / "tokenizer.json"
        words = hashlib.blake2b(tokenizer.read_bytes(), digest_size=8).hexdigest() if tokenizer.is_file() else "none"
        return f"{model_hash(path)}-{words}"
    total = hashlib.blake2b(digest_size=16)
    if path.is_file():
        _feed(total, path)
        return total.hexdigest()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        name = file.relative_to(path)
        if not any(part.startswith(".") for part in name.parts):
            total.update(json.dumps([str(name), file.stat().st_size]).encode())
            _feed(total, file)
    return total.hexdigest()


def _feed(total: hashlib.blake2b, file: Path) -> None:
    with file.open("rb") as f:
        while chunk := f.read(_CHUNK):
            total.update(chunk)
