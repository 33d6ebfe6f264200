"""Reads the header of a GGUF version 3 file: metadata and where each tensor lies.

Layout from the GGUF specification (ggml, docs/gguf.md): magic, version, two counts, key-value pairs, tensor
infos, padding, tensor data; little-endian. `gguf.GGUFReader` reads the same but makes several numpy views of
each of the 98,052 tokens and merges, which costs seconds; a plain loop takes a fraction of one.
Does not cover: versions 1 and 2, big-endian files, arrays of arrays.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1core import api
from r1core_smollm2.wheel import REINSTALL

MAGIC = b"GGUF"
VERSION = 3
SMALLEST = 24  # bytes: magic, version and the two counts
DEFAULT_ALIGNMENT = 32  # bytes, where `general.alignment` is not given
MAX_DIMENSIONS = 4  # GGML_MAX_DIMS

# type number -> struct code
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies.

    Parameters
    ----------
    shape : outermost dimension first, as numpy and torch write it (the file has it the other way round).
    type : number of the ggml quantisation type.
    offset : of the first byte, from the start of the file.
    """

    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True, slots=True)
class Header:
    """The metadata (strings, numbers, lists of these) and the tensors by name; `data` maps the whole file."""

    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]
    data: mmap.mmap


def damaged(path: Path, what: str) -> api.UserError:
    """The error for a file that is not what it should be."""
    return api.UserError(f"smollm2: {path}: {what}", fix=f"{REINSTALL}, or set model.path")


def read_header(path: Path) -> Header:
    """Map the file and parse its header.

    Raises
    ------
    UserError : where it is not a whole GGUF version 3 file.
    """
    with path.open("rb") as stream:
        if len(start := stream.read(SMALLEST)) < SMALLEST or not start.startswith(MAGIC):
            raise damaged(path, f"not a GGUF file: it starts with {start[:4]!r}, expected {MAGIC!r}")
        data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    cursor = _Cursor(data, position=4)
    if (version := cursor.scalar("I")) != VERSION:
        raise damaged(path, f"GGUF version {version}, expected {VERSION} (little-endian)")
    try:
        return _parse(cursor, data)
    except (struct.error, ValueError, OverflowError) as error:
        raise damaged(path, f"broken GGUF header near byte {cursor.position:,}: {error}") from error


def _parse(cursor: _Cursor, data: mmap.mmap) -> Header:
    tensor_count, pair_count = cursor.scalar("Q"), cursor.scalar("Q")
    metadata: dict[str, Any] = {}
    for _ in range(pair_count):
        key = cursor.string()
        if key in metadata:
            raise ValueError(f"key {key!r} occurs twice")
        metadata[key] = cursor.value(cursor.scalar("I"))
    infos: dict[str, TensorInfo] = {}
    for _ in range(tensor_count):
        name = cursor.string()
        if name in infos:
            raise ValueError(f"tensor {name!r} occurs twice")
        dimensions = cursor.scalar("I")
        if dimensions > MAX_DIMENSIONS:
            raise ValueError(f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(reversed([cursor.scalar("Q") for _ in range(dimensions)]))
        infos[name] = TensorInfo(shape, cursor.scalar("I"), cursor.scalar("Q"))
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment <= 0:
        raise ValueError(f"general.alignment is {alignment!r}")
    start = math.ceil(cursor.position / alignment) * alignment
    tensors = {n: TensorInfo(t.shape, t.type, start + t.offset) for n, t in infos.items()}
    return Header(metadata, tensors, data)


class _Cursor:
    """A position in the mapped file; every read past its end is a `struct.error` or a `ValueError`."""

    def __init__(self, data: mmap.mmap, position: int) -> None:
        self.data, self.position = data, position

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self.position)
        self.position += struct.calcsize("<" + code)
        return value

    def string(self) -> str:
        return self.strings(1)[0]

    def strings(self, count: int) -> list[str]:
        """Local names throughout: this loop runs about 100,000 times."""
        data, position, length_at = self.data, self.position, struct.Struct("<Q").unpack_from
        texts: list[str] = []
        for _ in range(count):
            (length,) = length_at(data, position)
            end = position + 8 + length
            raw = data[position + 8 : end]
            if len(raw) != length:
                raise ValueError(f"a string of {length:,} bytes runs past the end of the file")
            texts.append(raw.decode())
            self.position = position = end
        return texts

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self.array(self.scalar("I"), self.scalar("Q"))
        if kind in SCALARS:
            return self.scalar(SCALARS[kind])
        raise ValueError(f"unknown value type {kind}")

    def array(self, kind: int, count: int) -> list[Any]:
        if kind == STRING:
            return list(self.strings(count))
        if kind not in SCALARS:
            raise ValueError(f"an array of value type {kind}")
        width = struct.calcsize("<" + SCALARS[kind])
        raw = self.data[self.position : self.position + count * width]
        if len(raw) != count * width:
            raise ValueError(f"an array of {count:,} values runs past the end of the file")
        self.position += len(raw)
        return list(struct.unpack(f"<{count}{SCALARS[kind]}", raw))
