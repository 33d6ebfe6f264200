"""What the data sets share: where a name falls in a split by hash, and the fingerprint of what rows are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def position_of(name: str) -> float:
    """SHA-256 of a name, read as a number in [0, 1); the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def fingerprint_of(files: Iterable[Path], shape: object) -> str:
    """SHA-256 of the bytes of the files, one behind the other, and of what shapes a row (its `repr`)."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    digest.update(repr(shape).encode())
    return digest.hexdigest()
