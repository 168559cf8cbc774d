"""Row counts and digests of the data files. A run records them at its start; a resume compares them.

The order of prompts and the parts of a sampling job depend on the number of rows. With other files,
a resume would use some prompts twice and others never. Synthetic tasks have no files; the
configuration determines them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from r1ray.config.schema import DataConfig, SourceConfig
from r1ray.data.stores import files_of, open_rows
from r1ray.errors import ConfigError


def contents(data: DataConfig, *, evaluates: bool) -> dict[str, Any]:
    """Key of `data` -> source -> number of `rows` and their `digest`, for every file source that the command reads.

    `evaluates`: whether the command evaluates on `data.evaluation`. Reads the files once, at the
    speed of a hash (JSONL, Parquet) or of the `datasets` library. Raises ConfigError for a missing
    source.
    """
    read = {"train": data.train}
    if evaluates or data.decontaminate:
        read["evaluation"] = data.evaluation
    if data.decontaminate:
        read["decontaminate_against"] = data.decontaminate_against
    found = {
        f"data.{section}": {name: _of(source) for name, source in _named(sources) if source.kind != "synthetic"}
        for section, sources in read.items()
    }
    return {section: sources for section, sources in found.items() if sources}


def differences(begun: Any, now: Any, name: str = "") -> Iterator[str]:
    """One text for each value in which two results of `contents` differ."""
    if isinstance(begun, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*begun, *now]):
            yield from differences(begun.get(key), now.get(key), f"{name} {key}".strip())
    elif begun != now:
        yield f"{name} {begun}, now {now}"


def _named(sources: Sequence[SourceConfig]) -> Iterator[tuple[str, SourceConfig]]:
    """Each source with its name, numbered if it occurs again, as `decontaminate_against` allows."""
    seen: Counter[str] = Counter()
    for source in sources:
        seen[source.name] += 1
        yield source.name if seen[source.name] == 1 else f"{source.name} ({seen[source.name]})", source


def _of(source: SourceConfig) -> dict[str, Any]:
    if source.kind == "parquet":
        return _of_parquet(source)
    store = open_rows(source, subset=source.params.get("subset"), revision=source.params.get("revision"))
    return {"rows": len(store), "digest": store.digest()}


def _of_parquet(source: SourceConfig) -> dict[str, Any]:
    """Digest the complete files, whatever `limit` is: decoding gigabytes to hash a part would take minutes."""
    import pyarrow
    from pyarrow import parquet

    rows, hashed = 0, hashlib.sha256()
    for path in files_of(source):
        try:
            rows += parquet.read_metadata(path).num_rows
        except pyarrow.ArrowException as e:
            raise ConfigError(f"{path} cannot be read as Parquet: {e}") from e
        with path.open("rb") as file:
            hashed.update(hashlib.file_digest(file, "sha256").digest())
    return {"rows": rows if source.limit is None else min(rows, source.limit), "digest": hashed.hexdigest()[:32]}
