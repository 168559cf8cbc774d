"""Parts of tensors that a rank holds, and how they get into its files and back, under any number of ranks.

A replicated tensor is whole on every rank; each rank writes an equal share of it. Of a sharded one each rank holds, and
writes, its own part, or an equal share of it if other ranks hold the same. So every value is written once, and read
once:

    as many ranks, same parts      each rank reads its own file; nothing is sent
    replicated, or other parts     the files are divided among the ranks, which send what they read to all
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from learner.group import Ranks
from learner.shard_file import DTYPES, NAMES, Piece, PieceReader, covers
from r1ray.errors import IntegrityError


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The values [start, stop) of a flattened tensor, which this rank holds."""

    name: str
    shape: tuple[int, ...]  # of the whole tensor
    dtype: torch.dtype
    start: int
    stop: int
    replicated: bool  # every rank holds the whole tensor
    copies: tuple[int, int] = (0, 1)  # which, of how many ranks that hold the same part of a sharded tensor
    read: Callable[[], Tensor]  # the values, flat
    write: Callable[[int, Tensor], object]  # (first, values): set values of the part from its `first`

    def put(self, start: int, values: Tensor) -> None:
        """Set what `values`, which begin at `start` of the flattened tensor, have of this part."""
        low, high = max(start, self.start), min(start + len(values), self.stop)
        if low < high:
            self.write(low - self.start, values[low - start : high - start])


def whole(name: str, tensor: Tensor) -> Part:
    """A replicated tensor."""
    flat = tensor.detach().view(-1)
    return Part(
        name=name,
        shape=tuple(tensor.shape),
        dtype=tensor.dtype,
        start=0,
        stop=flat.numel(),
        replicated=True,
        read=lambda: flat,
        write=lambda first, values: flat[first : first + len(values)].copy_(values),
    )


def own_pieces(parts: Sequence[Part], ranks: Ranks) -> list[tuple[Part, Piece]]:
    """The parts of which this rank writes something, and what."""
    return [(part, piece) for part in parts if (piece := _own_piece(part, ranks)).numel]


def own_values(part: Part, piece: Piece) -> Tensor:
    """The values of a piece of `own_pieces`."""
    return part.read()[piece.start - part.start : piece.stop - part.start]


def _own_piece(part: Part, ranks: Ranks) -> Piece:
    which, holders = (ranks.rank, ranks.size) if part.replicated else part.copies
    share = math.ceil((part.stop - part.start) / holders)
    start = min(part.start + share * which, part.stop)
    stop = min(start + share, part.stop)
    return Piece(name=part.name, dtype=part.dtype, start=start, numel=stop - start, shape=part.shape)


def load_parts(parts: Sequence[Part], readers: Sequence[PieceReader], files: int, ranks: Ranks) -> None:
    """Fill the parts from `files` files, of which this rank reads number rank, rank + size, ... A collective.

    Raises IntegrityError, on every rank, if the files are of other tensors. The readers know of defects afterwards.
    """
    mine = {part.name: part for part in parts}
    own = [piece for _, piece in own_pieces(parts, ranks)]
    sharded = ranks.size == 1 or not any(part.replicated or part.copies[1] > 1 for part in parts)
    same = sharded and files == ranks.size and readers[0].pieces == own
    if all(ranks.gather(same)):
        for piece, at, values in readers[0].read():
            mine[piece.name].put(piece.start + at.start, values)
        return
    table = [[asdict(piece) | {"dtype": NAMES[piece.dtype]} for piece in reader.pieces] for reader in readers]
    tables = [[[_piece(row) for row in rows] for rows in of_rank] for of_rank in ranks.gather(table)]
    _check(mine, [piece for table in tables for pieces in table for piece in pieces])
    for turn in range(math.ceil(files / ranks.size)):
        _exchange(
            mine,
            readers[turn] if turn < len(readers) else None,
            [t[turn] if turn < len(t) else [] for t in tables],
            ranks,
        )


def _piece(row: Mapping[str, Any]) -> Piece:
    return Piece(**{**row, "dtype": DTYPES[row["dtype"]], "shape": tuple(row["shape"])})


def _exchange(
    mine: Mapping[str, Part], reader: PieceReader | None, tables: Sequence[list[Piece]], ranks: Ranks
) -> None:
    """One file of each rank: chunk by chunk, the ranks in turn, so that all of them read at the same time."""
    stream = reader.read() if reader is not None else iter(())
    chunks = [[(piece, at) for piece in table for at in piece.chunks()] for table in tables]
    for row in itertools.zip_longest(*chunks):
        for source, chunk in enumerate(row):
            if chunk is None:
                continue
            piece, at = chunk
            size = at.stop - at.start
            own = source == ranks.rank
            values = next(stream)[2] if own else torch.empty(size, dtype=piece.dtype, device="meta")
            mine[piece.name].put(piece.start + at.start, ranks.share(values, source))
    for _ in stream:  # to its end, where it compares the hash
        pass


def _check(mine: Mapping[str, Part], pieces: Sequence[Piece]) -> None:
    found: dict[str, list[Piece]] = {}
    for piece in sorted(pieces, key=lambda piece: piece.start):
        found.setdefault(piece.name, []).append(piece)
    for name, of_name in found.items():
        if name not in mine or {piece.shape for piece in of_name} != {mine[name].shape}:
            shape = of_name[0].shape
            raise IntegrityError(f"{name} {shape} is not a tensor of this model: is it the right checkpoint?")
    missing = [name for name in mine if name not in found or not covers(found[name])]
    if missing:
        raise IntegrityError(
            f"the checkpoint lacks {len(missing)} tensors of this model, {min(missing)} among them, or parts of them"
        )
