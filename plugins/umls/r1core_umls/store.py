"""A built knowledge base as arrays and blobs of bytes, mapped from disk or held in memory. No pickle.

C = concepts, in order of their id; N = names; K = keys of names (a name has one or two); P = is-a pairs.

    ids, records           C strings: the id, and the rest of the concept as one line of JSON
    surfaces               N strings: a name without punctuation at its ends; those of one concept stand together
    name_concept           (N,) int32, position of the concept
    name_rank              (N,) uint8, 0 for the preferred name, then 1 + the place of the scope in SCOPES
    name_exact             (N,) uint8, 1 where only the very same letters match
    first_name             (C + 1,) int32: names of concept c are first_name[c] to first_name[c + 1]
    key_hash, key_name     (K,) uint64 ascending, and (K,) int32: the name that stands under the key
    first_hash, first_longest  hashes of first tokens, ascending; uint16, the most tokens of a name that begins so
    id_hash, id_position   (C,) uint64 ascending, (C,) int32
    parent_offsets, parents    (C + 1,) int64, (P,) int32; child_offsets, children: the same pairs the other way
    retired_ids, retired_targets  dropped identifiers, ascending; `REL target` lines

A hash hit is a candidate only: whoever reads compares the string itself.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STRINGS = ("ids", "records", "surfaces", "retired_ids", "retired_targets")


def hash64(text: str) -> int:
    """Return the first 64 bits of BLAKE2b over the UTF-8 bytes; the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


READ = 1 << 16  # strings that are decoded at a time when all are gone through


class Strings:
    """Strings in one blob of UTF-8: string i is bytes `offsets[i]` to `offsets[i + 1]`."""

    __slots__ = ("_blob", "_view", "offsets")

    def __init__(self, blob: bytes | mmap.mmap, offsets: NDArray[np.int64]) -> None:
        self._blob = blob
        self.offsets = offsets
        self._view = offsets.data  # indexing it gives a plain int, at a third of an array's cost

    def __len__(self) -> int:
        return len(self._view) - 1

    def __getitem__(self, position: int) -> str:
        return self._blob[self._view[position] : self._view[position + 1]].decode()

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), READ):
            yield from self.slice(first, min(first + READ, len(self)))
        self.let_go()

    def let_go(self) -> None:
        """Give the pages of a mapped blob back to the system, which reads them again where they are wanted."""
        if isinstance(self._blob, mmap.mmap):
            self._blob.madvise(mmap.MADV_DONTNEED)

    def raw(self, position: int) -> bytes:
        """Return the bytes of one string."""
        return self._blob[self._view[position] : self._view[position + 1]]

    def slice(self, first: int, last: int) -> list[str]:
        """Return strings `first` to `last`, that one left out; one read of the blob."""
        begin = self._view[first]
        text = self._blob[begin : self._view[last]]
        ends = self.offsets[first : last + 1] - begin
        return [text[a:b].decode() for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]


@dataclass(frozen=True, slots=True)
class Store:
    """The tables of a knowledge base; see the module for their shapes."""

    ids: Strings
    records: Strings
    surfaces: Strings
    name_concept: NDArray[np.int32]
    name_rank: NDArray[np.uint8]
    name_exact: NDArray[np.uint8]
    first_name: NDArray[np.int32]
    key_hash: NDArray[np.uint64]
    key_name: NDArray[np.int32]
    first_hash: NDArray[np.uint64]
    first_longest: NDArray[np.uint16]
    id_hash: NDArray[np.uint64]
    id_position: NDArray[np.int32]
    parent_offsets: NDArray[np.int64]
    parents: NDArray[np.int32]
    child_offsets: NDArray[np.int64]
    children: NDArray[np.int32]
    retired_ids: Strings
    retired_targets: Strings


def file_names() -> list[str]:
    """Return the names of the files of a store, in order."""
    names = [name for field in fields(Store) for name in _files(field.name)]
    return sorted(names)


def _files(name: str) -> tuple[str, ...]:
    return (f"{name}.bin", f"{name}.npy") if name in STRINGS else (f"{name}.npy",)


def open_store(folder: Path) -> Store:
    """Map the store of a folder: nothing is read before it is asked for.

    Raises
    ------
    OSError, ValueError : a file is absent, or not what `file_names` says.
    """
    tables: dict[str, Any] = {
        field.name: np.load(folder / f"{field.name}.npy", mmap_mode="r") for field in fields(Store)
    }
    strings = {name: Strings(_blob(folder / f"{name}.bin"), tables[name]) for name in STRINGS}
    return Store(**tables | strings)


def _blob(path: Path) -> bytes | mmap.mmap:
    with path.open("rb") as file:
        # An empty file cannot be mapped.
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
