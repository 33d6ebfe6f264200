"""Hashes of source files. A large file is hashed once: the hash is remembered for as long as the file stands untouched.

Untouched: same device, inode, size, and times of the last change in nanoseconds, that of the inode included, which no
program can set back.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from r1core import api
from r1core_umls.concepts import Progress

REMEMBERED = 4 << 20  # bytes; smaller files are hashed again, in some milliseconds
CHUNK = 8 << 20


def cache_root() -> Path:
    """Return the folder that all built knowledge bases stand in."""
    return api.cache_root() / "umls"


def file_digest(path: Path, progress: Progress | None = None) -> bytes:
    """Return the sha256 of a file's bytes."""
    status = path.stat()
    if status.st_size < REMEMBERED:
        return sha256(path)
    state = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    note = cache_root() / "hashes" / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.json"
    try:
        known = json.loads(note.read_text("utf-8"))
        if known["state"] == state:
            return bytes.fromhex(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no note, or one that says nothing: the file is hashed
    digest = sha256(path, progress)
    try:
        note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        aside = note.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps({"state": state, "sha256": digest.hex()}), "utf-8")
        aside.replace(note)
    except OSError:
        pass  # a folder that cannot be written costs time on the next call, and is reported when the base is saved
    return digest


def sha256(path: Path, progress: Progress | None = None) -> bytes:
    """Hash a file."""
    digest, done, size = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(f"hashing {path.name}", done, size)
    return digest.digest()
