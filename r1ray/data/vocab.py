"""A short hash of how a tokenizer maps text to ids."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

from r1ray.errors import ConfigError

_MEANING = ("normalizer", "pre_tokenizer", "post_processor", "model")
"""The parts of tokenizer.json that, with the added tokens, determine the ids of a text."""

_OLDER_FORMATS = ("vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "vocab.txt")


class FastTokenizer(Protocol):
    """A tokenizer of transformers that is based on the `tokenizers` library."""

    backend_tokenizer: Any


def vocab_hash(source: Path | FastTokenizer) -> str:
    """32 hexadecimal digits, equal for tokenizers that give equal ids, in whatever folder or file order.

    `source` is a model folder or a loaded tokenizer. If transformers rebuilt a tokenizer differently
    than its folder specifies, the two have different hashes. Raises ConfigError for a folder
    without a readable tokenizer.
    """
    if not isinstance(source, Path):
        return _digest(_meaning(json.loads(source.backend_tokenizer.to_str())))
    try:
        return _digest(_read(source))
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as e:
        raise ConfigError(f"cannot read the tokenizer in {source}: {e!r}; download the model again") from e


def _read(folder: Path) -> Any:
    if (whole := folder / "tokenizer.json").exists():
        return _meaning(json.loads(whole.read_text(encoding="utf-8")))
    parts = {name: (folder / name).read_bytes().hex() for name in _OLDER_FORMATS if (folder / name).exists()}
    if not parts:
        raise ConfigError(f"{folder} has no tokenizer: neither tokenizer.json nor any of {', '.join(_OLDER_FORMATS)}")
    return parts


def _meaning(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """The parts of a tokenizer.json that determine ids, in a form that does not depend on how it was written."""
    meaning = {name: tokenizer.get(name) for name in _MEANING}
    if model := meaning["model"]:
        pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model.get("merges", []))
        meaning["model"] = {**model, "merges": list(pairs)}
    added = tokenizer.get("added_tokens") or []
    return {**meaning, "added": sorted((t["id"], t["content"], t["special"]) for t in added)}


def _digest(content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()
