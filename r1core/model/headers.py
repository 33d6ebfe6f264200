"""Names and shapes of a model's weights, read from the headers of its safetensors files; no weight is read."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from r1core.api import UserError

_HEADER_LIMIT = 100_000_000
"""Bytes; safetensors itself refuses longer headers."""


def tensor_shapes(directory: Path) -> list[tuple[str, list[int]]]:
    """Name and shape of every weight in a model directory; empty where it has no safetensors files.

    Raises
    ------
    UserError : for a file that is cut short or is no safetensors.
    """
    return [entry for file in sorted(directory.glob("*.safetensors")) for entry in _tensors(file)]


def _tensors(file: Path) -> list[tuple[str, list[int]]]:
    """Name and shape of each tensor (format: 8 bytes little-endian, the length of a JSON header, the header, data)."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        head = stream.read(length) if length <= min(size, _HEADER_LIMIT) else b""
    try:
        entries = json.loads(head)
        entries.pop("__metadata__", None)
        found = [(str(name), list(map(int, entry["shape"]))) for name, entry in entries.items()]
        end = 8 + length + max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{file}: not a safetensors file", fix="copy or download the model again") from error
    if end != size:
        raise UserError(f"{file}: {size:,} bytes, its header says {end:,}", fix="copy or download the model again")
    return found
