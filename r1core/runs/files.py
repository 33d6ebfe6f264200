"""Writing that survives a crash and a full disk, and hashing of what was written.

Every write goes aside into the same directory, is fsynced, renamed over the target, and the directory is fsynced:
a reader sees the old content or the new one, never a part. Not covered: file systems that lie about fsync.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from r1core.api import JSON, R1Error

ASIDE_PREFIX = ".tmp-"
"""Names of unfinished files and directories start so; they are garbage whenever no writer is alive."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_BLOCK = 1 << 20  # bytes read at a time while hashing


class DiskFull(R1Error):
    """There is no room for a file; what stood there before is intact.

    Parameters
    ----------
    path : the file that was to be written.
    needed : its size in bytes.
    """

    def __init__(self, path: Path, needed: int, cause: OSError) -> None:
        super().__init__(
            f"no room to write {path}: {needed:,} bytes are needed ({os.strerror(cause.errno or 0)}); "
            "what was there before is intact, free some space and run the same command again"
        )
        self.path, self.needed = path, needed


@contextmanager
def disk_full_as_error(path: Path, needed: int) -> Iterator[None]:
    """Turn a full disk, quota or file-size limit inside the block into `DiskFull`; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(path, needed, error) from error
        raise


def aside_path(target: Path) -> Path:
    """A fresh name beside `target` for its unfinished form."""
    return target.with_name(f"{ASIDE_PREFIX}{target.name}-{os.getpid()}-{secrets.token_hex(4)}")


def write_synced(path: Path, data: bytes, *, named: Path | None = None) -> None:
    """Write a new file (mode 0600) and fsync it; on failure nothing of it stays.

    Parameters
    ----------
    named : the path that an error names, where `path` is only the unfinished form of it.
    """
    with disk_full_as_error(named or path, len(data)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as stream:
                view = memoryview(data)
                while view:
                    view = view[stream.write(view) :]
                os.fsync(stream.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace `path` by `data` (text is UTF-8) as a whole or not at all; missing parents are made.

    Raises
    ------
    DiskFull : when there is no room; the old file stays.
    """
    content = data.encode() if isinstance(data, str) else data
    aside = aside_path(path)
    with disk_full_as_error(path, len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_synced(aside, content, named=path)
        try:
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def canonical_json(value: JSON) -> str:
    """The one spelling of a JSON value: sorted keys, no spaces, no NaN.

    Raises
    ------
    ValueError : for NaN or infinity. TypeError : for what JSON has no form for.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def write_json(path: Path, value: JSON) -> None:
    """Write JSON for people to read (indented), atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, records: Sequence[Mapping[str, JSON]]) -> None:
    """Write one JSON object a line, atomically."""
    write_atomic(path, "".join(json_line(record) for record in records))


def json_line(record: Mapping[str, JSON]) -> str:
    """One record as a line of JSON, newline included."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def sync_directory(path: Path) -> None:
    """Make renames and deletions inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_tree(root: Path, keep: Callable[[Path], bool] | None = None) -> dict[str, str]:
    """Hash of every file under `root` by its relative POSIX path, sorted; a file gives `{".": hash}`.

    Parameters
    ----------
    keep : says of a relative path whether it counts; all do by default. Unfinished files (`.tmp-*`) never count.
    """
    if root.is_file():
        return {".": sha256_file(root)}
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        unfinished = any(part.startswith(ASIDE_PREFIX) for part in relative.parts)
        if path.is_file() and not unfinished and (keep is None or keep(relative)):
            found[relative.as_posix()] = sha256_file(path)
    return found


def tree_digest(root: Path, keep: Callable[[Path], bool] | None = None) -> str:
    """One hash for a file or a directory: names and contents, whatever the order on disk."""
    hashes = sha256_tree(root, keep)
    return hashes["."] if list(hashes) == ["."] else sha256_bytes(canonical_json(hashes).encode())
