"""Files of tensor pieces in the safetensors format, hashed while they are written or read.

A piece is a part of a tensor: its name, where it begins in the flattened tensor, and the shape of the whole. A file
without that table in its metadata holds whole tensors, such as the checkpoints of format 2.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from r1ray.errors import IntegrityError

CHUNK_BYTES = 2**26
"""Bytes of a piece in memory at once: more does not make a disk faster."""

_TABLE = "pieces"
NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint8: "U8"}
DTYPES = {name: dtype for dtype, name in NAMES.items()}
"""Types of tensors by their safetensors names."""

Entry = dict[str, Any]
"""Size in bytes and SHA-256 of a file, as in the manifest of a checkpoint."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The values [start, start + numel) of a flattened tensor."""

    name: str
    dtype: torch.dtype
    start: int
    numel: int
    shape: tuple[int, ...]  # of the whole tensor

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return int(self.numel * self.dtype.itemsize)

    @property
    def stop(self) -> int:
        """End of the piece in the flattened tensor."""
        return self.start + self.numel

    def chunks(self) -> Iterator[slice]:
        """Parts of the piece of up to CHUNK_BYTES, as slices of its values."""
        size = max(1, CHUNK_BYTES // self.dtype.itemsize)
        return (slice(first, min(first + size, self.numel)) for first in range(0, self.numel, size))


def write_pieces(path: Path, pieces: Sequence[Piece], values: Iterable[Tensor]) -> Entry:
    """Write a new file of pieces with their values, in order, and flush it to the disk; returns its entry."""
    with path.open("xb") as file, ThreadPoolExecutor(1) as hasher:
        sha256, size = hashlib.sha256(), 0

        def write(data: Any) -> None:
            nonlocal size
            hashed = hasher.submit(sha256.update, data)
            file.write(data)
            hashed.result()
            size += len(data)

        write(_header(pieces))
        for piece, value in zip(pieces, values, strict=True):
            flat = value.detach().reshape(-1)
            assert (flat.numel(), flat.dtype) == (piece.numel, piece.dtype), f"{piece}: {flat.numel()} {flat.dtype}"
            for part in piece.chunks():
                write(memoryview(flat[part].cpu().contiguous().view(torch.uint8).numpy()))
        file.flush()
        os.fsync(file.fileno())
    return {"size": size, "sha256": sha256.hexdigest()}


def write_whole(path: Path, tensors: Mapping[str, Tensor]) -> Entry:
    """Write a new file of whole tensors, and flush it to the disk; returns its entry."""
    pieces = [
        Piece(name=name, dtype=tensor.dtype, start=0, numel=tensor.numel(), shape=tuple(tensor.shape))
        for name, tensor in tensors.items()
    ]
    return write_pieces(path, pieces, tensors.values())


def _header(pieces: Sequence[Piece]) -> bytes:
    table = {p.name: [p.start, *p.shape] for p in pieces}
    header: dict[str, Any] = {"__metadata__": {"format": "pt", _TABLE: json.dumps(table)}}
    offset = 0
    for p in pieces:
        span = [offset, offset := offset + p.nbytes]
        header[p.name] = {"dtype": NAMES[p.dtype], "shape": [p.numel], "data_offsets": span}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)  # readers map the values, which must be aligned
    return len(encoded).to_bytes(8, "little") + encoded


class PieceReader:
    """Reads a file of pieces from its beginning to its end, once, and compares it with its entry of the manifest."""

    def __init__(self, path: Path, expected: Entry) -> None:
        """Read the header. A file that cannot be read has no pieces, and a `defect`."""
        self.defect: str | None = None
        self.pieces: list[Piece] = []
        self._name, self._expected = path.name, expected
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._file: Any = None
        try:
            self._file = path.open("rb", buffering=0)
            self.pieces = self._read_header()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            self.defect = f"{path.name} cannot be read: {e!r}"

    def read(self) -> Iterator[tuple[Piece, slice, Tensor]]:
        """(piece, part of it, its values on the CPU), the next one being read meanwhile.

        If reading fails, arbitrary values follow to the end. `defect` says so, and whether the hash is another one.
        """
        yield from _ahead(self._read())

    def _read(self) -> Iterator[tuple[Piece, slice, Tensor]]:
        for piece in self.pieces:
            for part in piece.chunks():
                values = torch.empty(part.stop - part.start, dtype=piece.dtype)
                self._read_into(memoryview(values.view(torch.uint8).numpy()))
                yield piece, part, values
        if self.defect is None and self._entry() != self._expected:
            self.defect = f"{self._name} does not match the manifest"
        self.close()

    def finish(self) -> None:
        """Read the file to its end for `defect` alone."""
        for _ in self._read():
            pass

    def close(self) -> None:
        """Close the file; `read` does so at the end."""
        if self._file is not None:
            self._file.close()

    def _entry(self) -> Entry:
        return {"size": self._size, "sha256": self._sha256.hexdigest()}

    def _read_into(self, buffer: memoryview) -> None:
        if self.defect is not None:
            return
        done = 0
        try:
            while done < len(buffer):
                if (got := self._file.readinto(buffer[done:])) == 0:
                    raise OSError("it ends early")
                done += got or 0
        except OSError as e:
            self.defect = f"{self._name} cannot be read: {e!r}"
            return
        self._sha256.update(buffer)
        self._size += len(buffer)

    def _read_header(self) -> list[Piece]:
        length = int.from_bytes(self._take(8), "little")
        if length > (there := os.fstat(self._file.fileno()).st_size):  # a damaged file must not exhaust the memory
            raise ValueError(f"its header would have {length} bytes of {there}")
        header = json.loads(self._take(length))
        table = json.loads((header.pop("__metadata__", None) or {}).get(_TABLE, "{}"))
        pieces, offset = [], 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            start, *shape = table.get(name, [0, *entry["shape"]])
            numel = math.prod(entry["shape"])
            piece = Piece(name=name, dtype=DTYPES[entry["dtype"]], start=start, numel=numel, shape=tuple(shape))
            if entry["data_offsets"] != [offset, offset + piece.nbytes]:
                raise ValueError(f"{name} is not where it should be")
            offset += piece.nbytes
            pieces.append(piece)
        return pieces

    def _take(self, size: int) -> bytes:
        data = bytearray(size)
        self._read_into(memoryview(data))
        if self.defect is not None:
            raise ValueError(self.defect)
        return bytes(data)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, each requested while the one before is used."""
    end: Any = object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item


def read_tensors(paths: Sequence[Path], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of files of pieces together: those whose names begin with `prefix`, one at a time, on the CPU.

    Compares no hash. Raises IntegrityError if a tensor has a gap.
    """
    from safetensors import safe_open

    found: dict[str, list[tuple[Piece, Any]]] = {}
    for path in paths:
        reader = PieceReader(path, {})
        reader.close()
        if reader.defect is not None:
            raise IntegrityError(f"{path.parent}: {reader.defect}")
        file: Any = safe_open(path, framework="pt")
        for piece in reader.pieces:
            if piece.name.startswith(prefix):
                found.setdefault(piece.name, []).append((piece, file))
    for name, parts in found.items():
        parts.sort(key=lambda part: part[0].start)
        if not covers([piece for piece, _ in parts]):
            raise IntegrityError(f"{paths[0].parent}: {name} is incomplete")
        values = [file.get_tensor(name).reshape(-1) for _, file in parts]
        whole = torch.cat(values) if len(values) > 1 else values[0]
        yield name, whole.reshape(parts[0][0].shape)


def covers(pieces: Sequence[Piece]) -> bool:
    """Whether pieces of one tensor, by their start, are the whole tensor, each value once."""
    ends = [0, *(piece.stop for piece in pieces)]
    whole = ends[-1] == math.prod(pieces[0].shape)
    return whole and all(piece.start == end for piece, end in zip(pieces, ends, strict=False))
