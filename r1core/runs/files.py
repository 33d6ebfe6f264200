"""Writing that survives a crash and a full disk, and hashing of what was written.

Every write goes aside into the same directory, is fsynced, renamed over the target, and the directory is fsynced:
a reader sees the old content or the new one, never a part. Not covered: file systems that lie about fsync.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from r1core.api import JSON, R1Error

ASIDE_PREFIX = ".tmp-"
"""Names of unfinished files and directories start so; they are garbage whenever no writer is alive."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_BLOCK = 1 << 20  # bytes read at a time while hashing


class DiskFull(R1Error):
    """There is no room for a file or folder; what stood there before is intact.

    Parameters
    ----------
    path : what was to be written.
    needed : its size in bytes, 0 where that is not known.
    number : the system's error number.
    """

    def __init__(self, path: Path, needed: int, number: int) -> None:
        told = os.strerror(number)
        size = f": {needed:,} bytes are needed ({told})" if needed else f" ({told})"
        super().__init__(
            f"no room to write {path}{size}; "
            "what was there before is intact, free some space and run the same command again"
        )
        self.path, self.needed = path, needed


@contextmanager
def disk_full_as_error(path: Path, needed: int = 0) -> Iterator[None]:
    """Turn a full disk, quota or file-size limit inside the block into `DiskFull`; other errors pass.

    It is recognised in the words of Rust libraries too: safetensors has an exception of its own, not an `OSError`.
    """
    try:
        yield
    except Exception as error:
        number = _error_number(error)
        if number in _FULL:
            raise DiskFull(path, needed, number) from error
        raise


def _error_number(error: Exception) -> int:
    """The system's number for what went wrong, 0 where the error tells none."""
    told = re.search(r"\(os error (\d+)\)", str(error))  # how Rust's `io::Error` ends
    number = error.errno if isinstance(error, OSError) else int(told[1]) if told else 0
    return number or 0


@contextmanager
def directory_replaced(target: Path) -> Iterator[Path]:
    """A fresh directory (mode 0700) to fill, which takes the place of `target` as a whole when the block ends.

    For libraries that write files themselves (PEFT, safetensors). Whatever is raised inside, what stood at `target`
    stays as it was. A kill between the last two renames leaves neither; the stage then counts as not done.

    Raises
    ------
    DiskFull : when there is no room, however the library in the block says so.
    """
    aside, replaced = aside_path(target), aside_path(target)
    try:
        with disk_full_as_error(target):
            aside.mkdir(mode=0o700, parents=True)
            yield aside
            for path in sorted(aside.rglob("*")):
                _flush(path)
            sync_directory(aside)
        if target.exists():
            target.rename(replaced)
        aside.rename(target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync_directory(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


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
    _flush(path)


def _flush(path: Path) -> None:
    """Make a file's content, or a directory's entries, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
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
